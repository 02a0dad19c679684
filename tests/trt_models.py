"""A small Evo-DeiT as ONNX for the TensorRT tests, exported once a session for each set of options."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, Recipe, Structure

_FOLDER = tempfile.TemporaryDirectory(prefix="evovit-tests-")
DEPTH, SIZE, CLASSES = 2, 64, 7


@functools.cache
def tiny_onnx(
    precision: str = "fp16", image_input: str = "float32", pattern: str = "sort", outputs: str = "logits"
) -> Path:
    """Path of the export: C 128, 2 heads, 2 blocks, 16 patches, half of them kept in the second."""
    evolution = Evolution((1.0, 0.5), (1.0, 0.5), stage_starts=(1,))
    recipe = Recipe("evo_deit_test", "evo_deit", Structure(SIZE, 16, 128, DEPTH, 2, num_classes=CLASSES), evolution)
    model: Any = ModelOptions(precision, image_input, pattern, tuple(outputs.split(",")))  # type: ignore[arg-type]
    path = Path(_FOLDER.name) / f"{precision}_{image_input}_{pattern}_{outputs.replace(',', '_')}.onnx"
    return export_onnx(random_checkpoint(recipe), path, ExportOptions(model, prove=False)).path

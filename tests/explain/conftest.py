"""A small model that selects twice, as checkpoint module and as ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest

from evovit_deploy import ExportOptions, export_onnx, random_checkpoint
from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.engines import OrtEngine, TorchEngine
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, Recipe, Structure

RECIPE = Recipe(
    "micro",
    "evo_deit",
    Structure(image_size=64, patch_size=16, embed_dim=64, depth=3, num_heads=2, num_classes=5),
    Evolution((1, 0.5, 0.25), (1, 0.5, 0.5), stage_starts=(1, 2)),
)


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return random_checkpoint(RECIPE)


@pytest.fixture
def module_engine(checkpoint: Checkpoint) -> TorchEngine:
    return TorchEngine.from_checkpoint(checkpoint, ModelOptions(outputs=("logits", "kept")), provider="cpu")


@pytest.fixture(scope="session")
def onnx_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "micro.onnx"
    export_onnx(checkpoint, path, ExportOptions(ModelOptions(outputs=("logits", "kept"))))
    return path


@pytest.fixture
def onnx_engine(onnx_file: Path) -> OrtEngine:
    return OrtEngine(onnx_file, provider="cpu")

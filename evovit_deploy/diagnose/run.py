"""`diagnose`: from a model to a report of where half precision breaks it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.registry import is_engine
from ..errors import InputError
from ..images.folder import find_images
from .engine import examine_engine
from .examine import Step, examine
from .report import Diagnosis
from .sources import open_source, prepare_images

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..models.options import ModelOptions

__all__ = ["diagnose"]

Array = NDArray[Any]


def diagnose(
    model: str | Path | Checkpoint,
    *,
    against: str | Path | Checkpoint | None = None,
    precision: str = "fp16",
    options: ModelOptions | None = None,
    images: Array | Sequence[str | Path] | None = None,
    names: Sequence[str] = (),
    step: Step = lambda text, done, total: None,
) -> Diagnosis:
    """Run both precisions of a model layer by layer and say where they part.

    Half precision is computed as a GPU has it: in FP32 with a rounding after every operation. Both take the same decisions (which
    patches are kept), so that a difference is rounding and nothing else; what the decisions would have been is told by stage.

    Args:
        model: Checkpoint, or its path; ONNX file in FP16, BF16 or FP32, of this package or another tool; or an engine, which runs
            as it is, and whose layers, fused as they are, are told as those of ``against``.
        against: FP32 reference of an ONNX file: an ONNX file with the same node names, or the checkpoint it was exported from. By
            default the same graph in FP32, with its weights as they are stored. Of an engine: the checkpoint or ONNX file that it
            was built from, by default the ONNX file of its name beside it.
        precision: ``fp16`` or ``bf16``, of a checkpoint; a half-precision file has its own.
        options: Of a checkpoint's export: input, selection, folding.
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8, as the model takes them; or image files and
            folders; by default photographs, seeded images and hard ones (:func:`.probe_images`).
        names: Of the images, where these are an array.
        step: Called with a few words, runs done and runs in all.

    Raises:
        InputError: Files that cannot be compared, or a precision that is none.
        ModelFileError, CheckpointError: A model that cannot be read.
        EngineError: An engine that does not run on this machine.
    """
    began = time.monotonic()
    if precision not in ("fp16", "bf16"):
        raise InputError(f"precision {precision!r} cannot be diagnosed; valid: fp16, bf16.")
    given = images if images is None or isinstance(images, np.ndarray) else find_images(images)  # before an export
    if isinstance(model, (str, Path)) and is_engine(Path(model)):
        found = examine_engine(Path(model), against, given, tuple(names), step)
    else:
        source = open_source(model, against, precision, options, lambda text: step(text, 0, 0))
        shown, told = prepare_images(source, given, tuple(names))
        found = examine(source, shown, told, step).diagnosis
    return dataclasses.replace(found, seconds=time.monotonic() - began)

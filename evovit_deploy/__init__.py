"""Evo-ViT from checkpoint to ONNX, TensorRT and production.

    from evovit_deploy import load_checkpoint, export_onnx, Engine

    export_onnx(load_checkpoint("ckpt.pth"), "model.onnx")
    with Engine.open("model.onnx") as engine:
        logits = engine(images)["logits"]

Nothing heavy is imported before it is used: `import evovit_deploy` loads neither torch nor tensorrt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    CheckpointError,
    DeadlineExceeded,
    EngineError,
    EvoVitError,
    ExportError,
    InputError,
    ModelFileError,
    OutputError,
    Overloaded,
    ParityError,
    PlanError,
    RecipeError,
    UnstableMeasurement,
)
from .recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from .bench import benchmark
    from .checkpoint import Checkpoint, load_checkpoint, random_checkpoint
    from .engines import Engine, FakeEngine
    from .export import ExportOptions, export_onnx, verify
    from .serve import Batcher

__all__ = [
    "Batcher",
    "Checkpoint",
    "CheckpointError",
    "DeadlineExceeded",
    "Engine",
    "EngineError",
    "EvoVitError",
    "ExportError",
    "ExportOptions",
    "FakeEngine",
    "InputError",
    "ModelFileError",
    "OutputError",
    "Overloaded",
    "ParityError",
    "PlanError",
    "Recipe",
    "RecipeError",
    "UnstableMeasurement",
    "benchmark",
    "export_onnx",
    "load_checkpoint",
    "load_recipe",
    "random_checkpoint",
    "verify",
]

_LAZY = {
    "Checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "random_checkpoint": "checkpoint",
    "Engine": "engines",
    "FakeEngine": "engines",
    "ExportOptions": "export",
    "export_onnx": "export",
    "verify": "export",
    "benchmark": "bench",
    "Batcher": "serve",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

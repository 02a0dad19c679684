"""Evo-ViT from checkpoint to ONNX, TensorRT and production.

    from evovit_deploy import Engine, build_engine, export_onnx, load_checkpoint

    export_onnx(load_checkpoint("ckpt.pth"), "model.onnx")
    build_engine("model.onnx", "model.engine")
    with Engine.open("model.onnx") as engine:  # or model.engine, on a GPU
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
from .models import shipped as _families  # noqa: F401  registers them: recipes are read by their families
from .recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from .bench import BenchReport, benchmark
    from .building import BuildOptions, BuildResult, build_engine
    from .checkpoint import Checkpoint, load_checkpoint, random_checkpoint, timm_recipe
    from .engines import Engine, FakeEngine, OrtEngine, TorchEngine, TrtEngine
    from .engines.batching.batcher import Batcher
    from .export import ExportOptions, ExportResult, ParityReport, export_baseline, export_onnx, verify
    from .manifest.spec import ModelSpec
    from .models.options import ModelOptions

__all__ = [
    "Batcher",
    "BenchReport",
    "BuildOptions",
    "BuildResult",
    "Checkpoint",
    "CheckpointError",
    "DeadlineExceeded",
    "Engine",
    "EngineError",
    "EvoVitError",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "FakeEngine",
    "InputError",
    "ModelFileError",
    "ModelOptions",
    "ModelSpec",
    "OrtEngine",
    "OutputError",
    "Overloaded",
    "ParityError",
    "ParityReport",
    "PlanError",
    "Recipe",
    "RecipeError",
    "TorchEngine",
    "TrtEngine",
    "UnstableMeasurement",
    "benchmark",
    "build_engine",
    "export_baseline",
    "export_onnx",
    "load_checkpoint",
    "load_recipe",
    "random_checkpoint",
    "timm_recipe",
    "verify",
]

_LAZY = {
    "BenchReport": "bench",
    "benchmark": "bench",
    "Checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "random_checkpoint": "checkpoint",
    "timm_recipe": "checkpoint",
    "BuildOptions": "building",
    "BuildResult": "building",
    "Engine": "engines",
    "FakeEngine": "engines",
    "ModelSpec": "manifest.spec",
    "OrtEngine": "engines",
    "TorchEngine": "engines",
    "TrtEngine": "engines",
    "build_engine": "building",
    "ExportOptions": "export",
    "ExportResult": "export",
    "ParityReport": "export",
    "export_baseline": "export",
    "export_onnx": "export",
    "verify": "export",
    "ModelOptions": "models.options",
    "Batcher": "engines.batching.batcher",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

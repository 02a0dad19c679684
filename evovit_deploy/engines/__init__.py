"""Engines: one way to run a model, whatever it was compiled for."""

from .base import Engine, ModelSpec
from .build import BuildResult, build_engine
from .fake import FakeEngine
from .onnxruntime import OrtEngine
from .options import BuildOptions
from .pytorch import TorchEngine
from .tensorrt import TrtEngine

__all__ = [
    "BuildOptions",
    "BuildResult",
    "Engine",
    "FakeEngine",
    "ModelSpec",
    "OrtEngine",
    "TorchEngine",
    "TrtEngine",
    "build_engine",
]

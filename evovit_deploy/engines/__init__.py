"""Engines: one way to run a model, whatever it was compiled for. Each backend is imported here, and registers itself."""

from ..manifest.spec import ModelSpec
from .base import Engine
from .fake import FakeEngine
from .onnxruntime import OrtEngine
from .pytorch import TorchEngine
from .trt import backends as _tensorrt  # noqa: F401
from .trt.tensorrt import TrtEngine

__all__ = [
    "Engine",
    "FakeEngine",
    "ModelSpec",
    "OrtEngine",
    "TorchEngine",
    "TrtEngine",
]

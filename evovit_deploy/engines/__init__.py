"""Engines: one way to run a model, whatever it was compiled for. Each backend is imported here, and registers itself."""

from ..manifest.spec import ModelSpec
from .base import Engine
from .fake import FakeEngine
from .onnxruntime import OrtEngine
from .pytorch import TorchEngine
from .trt import backends as _tensorrt  # noqa: F401
from .trt.tensorrt import TrtEngine

# isort: split
from .inductor import backends as _inductor  # noqa: F401  # last in the lists of backends

__all__ = [
    "Engine",
    "FakeEngine",
    "ModelSpec",
    "OrtEngine",
    "TorchEngine",
    "TrtEngine",
]

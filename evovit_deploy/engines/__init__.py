"""Engines: one way to run a model, whatever it was compiled for."""

from ..manifest.spec import ModelSpec
from .base import Engine
from .fake import FakeEngine
from .onnxruntime import OrtEngine
from .pytorch import TorchEngine
from .trt.tensorrt import TrtEngine

__all__ = [
    "Engine",
    "FakeEngine",
    "ModelSpec",
    "OrtEngine",
    "TorchEngine",
    "TrtEngine",
]

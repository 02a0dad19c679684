"""Building: from an ONNX file to a TensorRT plan, or from a module to native code; checked and proven."""

from ..engines.trt.options import BuildOptions
from .build import BuildResult, build_engine

__all__ = ["BuildOptions", "BuildResult", "build_engine"]

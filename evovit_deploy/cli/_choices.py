"""Choices that several commands offer."""

from __future__ import annotations

from enum import Enum

__all__ = ["Backend", "Provider", "Target"]


class Provider(str, Enum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Backend(str, Enum):
    """What runs them."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    pytorch = "pytorch"


class Target(str, Enum):
    """Which TensorRT."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"

"""Choices that several commands offer."""

from __future__ import annotations

from enum import Enum

__all__ = ["Backend", "Provider"]


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

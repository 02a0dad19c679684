"""Choices that several commands offer."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import typer

__all__ = ["Arrivals", "Backend", "ClassOrder", "Force", "MeasuredBackend", "Precision", "Provider", "Target"]

# The same in every command that writes. Without it all but `evovit package` replace what they wrote themselves.
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there, also those evovit did not write.")]


class Provider(str, Enum):
    """Where models run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ClassOrder(str, Enum):
    """How training numbered the class folders."""

    auto = "auto"
    text = "text"
    natural = "natural"

    @property
    def order(self) -> Literal["text", "natural"] | None:
        """The order; None leaves it to the names."""
        return None if self is ClassOrder.auto else self.value  # type: ignore[return-value]


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


class MeasuredBackend(str, Enum):
    """What `evovit bench` can run them with."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    pytorch = "pytorch"
    compile = "compile"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class Precision(str, Enum):
    """Parameters and activations of an export."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Arrivals(str, Enum):
    """How paced requests are spaced."""

    poisson = "poisson"
    constant = "constant"

"""Choices of the commands: fixed ones, and the names of what is registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Literal

import typer

__all__ = [
    "LATE",
    "Arrivals",
    "AttentionForm",
    "BaselineKind",
    "ClassOrder",
    "Device",
    "ExportTarget",
    "Format",
    "HalfPrecision",
    "Hardware",
    "ImageInput",
    "Pool",
    "Precision",
    "SelectionPattern",
    "Target",
    "Tiling",
    "one_of",
]


def backends() -> Sequence[str]:
    """Say what ``--backend`` takes."""
    from ..engines.registry import names

    return names()


def providers() -> Sequence[str]:
    """Say what ``--provider`` takes."""
    from ..engines.registry import providers

    return providers()


def methods() -> Sequence[str]:
    """Say what ``--method`` takes."""
    from ..models.families import methods

    return methods()


# Choices that are looked up when they are needed, in a call, its help or completion: placeholder in the help -> values.
LATE: dict[str, Callable[[], Sequence[str]]] = {
    "BACKEND": backends,
    "BACKEND|all": lambda: (*backends(), "all"),
    "METHOD": methods,
    "PROVIDER": providers,
}


def one_of(placeholder: str) -> Callable[[str], str]:
    """Return a parser that takes one value of :data:`LATE`."""

    def parse(value: str) -> str:
        values = LATE[placeholder]()
        if value not in values:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, values))}.")
        return value

    return parse


class ClassOrder(str, Enum):
    """How training numbered the class folders."""

    auto = "auto"
    text = "text"
    natural = "natural"

    @property
    def order(self) -> Literal["text", "natural"] | None:
        """The order; None leaves it to the names."""
        return None if self is ClassOrder.auto else self.value  # type: ignore[return-value]


class Target(str, Enum):
    """Which TensorRT."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class HalfPrecision(str, Enum):
    """What is held against FP32."""

    fp16 = "fp16"
    bf16 = "bf16"


class ExportTarget(str, Enum):
    """Which kind of engine is built of a checkpoint."""

    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    inductor = "inductor"


class Device(str, Enum):
    """What an inductor engine is compiled for."""

    cpu = "cpu"
    cuda = "cuda"


class Precision(str, Enum):
    """Parameters and activations of an export."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Arrivals(str, Enum):
    """How paced requests are spaced."""

    poisson = "poisson"
    constant = "constant"


class Format(str, Enum):
    """What to write."""

    onnx = "onnx"
    engine = "engine"


class AttentionForm(str, Enum):
    """How attention is written in ONNX."""

    plain = "plain"
    operator = "operator"


class ImageInput(str, Enum):
    """What the model takes."""

    float32 = "float32"
    uint8 = "uint8"


class SelectionPattern(str, Enum):
    """How tokens are selected."""

    auto = "auto"
    sort = "sort"
    topk = "topk"
    rank = "rank"
    onehot = "onehot"


class Pool(str, Enum):
    """What a timm ViT classifies."""

    token = "token"
    avg = "avg"


class BaselineKind(str, Enum):
    """Which vanilla baseline."""

    twin = "twin"
    trimmed = "trimmed"
    stock = "stock"


class Hardware(str, Enum):
    """Hardware compatibility of full TensorRT."""

    none = "none"
    ampere_plus = "ampere+"
    same = "same-compute-capability"


class Tiling(str, Enum):
    """Tiling level of full TensorRT."""

    none = "none"
    fast = "fast"
    moderate = "moderate"
    full = "full"

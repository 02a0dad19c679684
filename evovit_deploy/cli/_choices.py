"""Fixed choices of the commands."""

from __future__ import annotations

from enum import Enum
from typing import Literal

__all__ = [
    "Arrivals",
    "Backend",
    "BaselineKind",
    "ClassOrder",
    "Format",
    "Hardware",
    "ImageInput",
    "MeasuredBackend",
    "Pool",
    "Precision",
    "Provider",
    "SelectionPattern",
    "Target",
    "Tiling",
]


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


class Format(str, Enum):
    """What to write."""

    onnx = "onnx"
    engine = "engine"


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

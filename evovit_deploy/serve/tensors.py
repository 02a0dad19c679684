"""Tensors as the Open Inference Protocol names and writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.batching.requests import Array
from ..manifest.spec import ModelSpec
from .json_body import Numbers
from .rejections import Rejected

__all__ = ["DATATYPES", "TensorInfo", "finite", "from_bytes", "from_numbers", "from_values", "image_tensor"]

INPUT = "images"
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}  # of numpy -> of the protocol


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model: shape without the batch, -1 for a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def image_tensor(spec: ModelSpec) -> TensorInfo:
    """Return the input of a model."""
    return TensorInfo(INPUT, DATATYPES[spec.input], spec.image_shape)


def check(info: TensorInfo, name: Any, datatype: Any, shape: Any, max_images: int) -> tuple[int, ...]:
    """Return whether a tensor that a client announces is the model's input; returns its shape.

    Raises:
        Rejected: Another name, datatype or shape, or more images than the queue holds.
    """
    if name != info.name:
        raise Rejected(400, f"the model has no input called {_shown(name)}; it has one: {info.name}.")
    if datatype != info.datatype:
        raise Rejected(400, f"input {info.name} is {info.datatype}, not {_shown(datatype)}.")
    expected = ", ".join(map(str, ("n", *info.shape)))
    if not isinstance(shape, (list, tuple)) or not all(type(size) is int for size in shape):
        raise Rejected(400, f"the shape of input {info.name} must be a list of whole numbers, [{expected}].")
    if tuple(shape[1:]) != info.shape or not shape[0] >= 1:
        raise Rejected(400, f"input {info.name} has shape [{expected}] with n >= 1, not {_shown(list(shape))}.")
    if shape[0] > max_images:
        raise Rejected(400, f"{shape[0]} images in one request; the queue holds {max_images}. Send fewer.")
    return tuple(shape)


def from_bytes(info: TensorInfo, shape: tuple[int, ...], data: memoryview | bytes) -> Array:
    """Raw little-endian values -> array over the same memory where its alignment allows."""
    dtype = _dtype(info)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise Rejected(400, f"input {info.name} of shape {list(shape)} takes {wanted} bytes, not {len(data)}.")
    array = np.frombuffer(data, dtype).reshape(shape)
    return finite(info, array if array.flags.aligned else array.copy())


def from_values(info: TensorInfo, shape: tuple[int, ...], values: Any) -> Array:
    """Numbers in lists, flat or nested as ``shape`` -> array.

    Raises:
        Rejected: Not numbers, too few or many, out of range, ragged, or not finite.
    """
    dtype = _dtype(info)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise Rejected(400, f"the data of input {info.name} is not a rectangular list of numbers.") from None
    if not isinstance(values, list) or array.dtype.kind not in ("iuf" if dtype.kind == "f" else "iu"):
        kind = "numbers" if dtype.kind == "f" else "whole numbers"
        raise Rejected(400, f"the data of input {info.name} must be a list of {kind}.")
    if array.shape != shape and array.shape != (math.prod(shape),):
        raise Rejected(400, f"the data of input {info.name} has shape {list(array.shape)}, which is not {list(shape)}.")
    if dtype.kind == "u" and (array.min() < 0 or array.max() > np.iinfo(dtype).max):
        raise Rejected(400, f"the data of input {info.name} is not within 0 to {np.iinfo(dtype).max}.")
    with np.errstate(over="ignore"):
        return finite(info, array.astype(dtype).reshape(shape))


def from_numbers(info: TensorInfo, shape: tuple[int, ...], numbers: Numbers | None) -> Array:
    """The numbers of a JSON request, flat or nested as ``shape`` -> array; None stands for anything else.

    Raises:
        Rejected: Not numbers, too few or many, out of range, nested in another way, or not finite.
    """
    dtype = _dtype(info)
    kind = "numbers" if dtype.kind == "f" else "whole numbers"
    if numbers is None:
        raise Rejected(400, f"the data of input {info.name} must be a list of {kind}.")
    try:
        return finite(info, numbers.read(shape, dtype))
    except IndexError:
        raise Rejected(
            400,
            f"the data of input {info.name} must be {math.prod(shape)} {kind} in a list, or nested as {list(shape)}.",
        ) from None
    except ValueError as error:
        raise Rejected(400, f"the data of input {info.name} must be {error}.") from None


def finite(info: TensorInfo, array: Array) -> Array:
    """Return the array, if it holds no NaN and no infinity."""
    # The sum of finite values can only be NaN or infinite by overflow, which the slower test then tells apart.
    if array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(array.sum(dtype=np.float32)) and not np.isfinite(array).all():
                raise Rejected(400, f"input {info.name} holds NaN or infinity.")
    return array


def _dtype(info: TensorInfo) -> np.dtype[Any]:
    return np.dtype(next(name for name, datatype in DATATYPES.items() if datatype == info.datatype)).newbyteorder("<")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Inference requests of gRPC as bytes: what is long is cut out before anything is parsed.

A parser of protocol buffers makes 50 bytes and more from two. So the pixels are found in the encoded message, where they stay,
and what is left of it has to be small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from ..engines.batching.requests import Array
from .rejections import Rejected
from .tensors import TensorInfo, check, finite, from_bytes, from_values

__all__ = ["InferMessage", "coding_of", "parse"]

MAX_MESSAGE = 1 << 14  # bytes of a message without its pixels
INPUTS, RAW = 5, 7  # fields of ModelInferRequest
CONTENTS = 5  # of its InferInputTensor
VALUES = {"UINT8": ("uint_contents", 4), "FP32": ("fp32_contents", 6)}  # of InferTensorContents
LENGTH_DELIMITED, SIZES = 2, {1: 8, 5: 4}  # of the wire format
LARGE = 4 << 20  # bytes of pixels
STEP = 1 << 16  # bytes of varints that are read at once
MAGIC = {b"\x1f\x8b": "gzip", b"\x78": "deflate"}  # no message of the protocol begins so


@dataclass(frozen=True)
class InferMessage:
    """A request, and its pixels where they were cut out.

    Attributes:
        request: ModelInferRequest.
        raw: Of ``raw_input_contents``.
        values: Of the ``contents`` of the input, packed; (number of the field, bytes).
    """

    request: Any
    raw: memoryview | None = None
    values: tuple[int, memoryview] | None = None

    @property
    def large(self) -> bool:
        """Whether reading the images should not be done in the event loop."""
        return self.values is not None or (self.raw is not None and len(self.raw) > LARGE)

    def images(self, info: TensorInfo, max_images: int) -> Array:
        """Return the images of the one input, which views the message where it can.

        Raises:
            Rejected: 400 and what is wrong.
        """
        request = self.request
        if len(request.inputs) != 1:
            raise Rejected(400, f"a request has one input, {info.name}; this one has {len(request.inputs)}.")
        tensor = request.inputs[0]
        shape = check(info, tensor.name, tensor.datatype, list(tensor.shape), max_images)
        if "shared_memory_region" in tensor.parameters:
            raise Rejected(400, "shared memory is not offered; send the data.")
        raw = list(request.raw_input_contents) if self.raw is None else [self.raw, *request.raw_input_contents]
        if raw:
            if len(raw) != 1 or self.values or tensor.HasField("contents"):
                raise Rejected(400, "one input takes one raw_input_contents, and no contents beside it.")
            return from_bytes(info, shape, raw[0])
        field, number = VALUES[info.datatype]
        if self.values is None:
            return from_values(info, shape, list(getattr(tensor.contents, field)))
        if self.values[0] != number or tensor.HasField("contents"):
            raise Rejected(400, f"the contents of input {info.name} must be {field}, packed, and nothing else.")
        if info.datatype == "FP32":
            return from_bytes(info, shape, self.values[1])
        return finite(info, _varints(info, shape, self.values[1]))


def coding_of(message: bytes) -> str | None:
    """Return the compression of a message as it came: gzip, deflate or None."""
    return MAGIC.get(message[:2], MAGIC.get(message[:1]))


def parse(kind: Any, data: bytes) -> Any:
    """Return a message of class ``kind``; of a ModelInferRequest an :class:`InferMessage`.

    Raises:
        Rejected: 400, it is none; 413, it is too large without its pixels.
    """
    raw = values = None
    if len(data) > MAX_MESSAGE:
        if kind is not pb.ModelInferRequest:
            raise _too_large()
        data, raw, values = _cut(memoryview(data))
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise Rejected(400, f"the message is not a {kind.DESCRIPTOR.name}.") from None
    return InferMessage(message, raw, values) if kind is pb.ModelInferRequest else message


def _cut(data: memoryview) -> tuple[bytes, memoryview | None, tuple[int, memoryview] | None]:
    """The message without its pixels, and the pixels."""
    raw: memoryview | None = None
    values: tuple[int, memoryview] | None = None
    rest = bytearray()
    for number, begin, start, end in _fields(data, 0, len(data)):
        if number == RAW and raw is None:
            raw = data[start:end]
        elif number == INPUTS and end - start > MAX_MESSAGE and values is None:
            inner = bytearray()
            for field, inner_begin, inner_start, inner_end in _fields(data, start, end):
                if field == CONTENTS and inner_end - inner_start > MAX_MESSAGE // 2:
                    found = list(_first(_fields(data, inner_start, inner_end)))
                    if values is not None or len(found) != 1:
                        raise Rejected(400, "the contents of an input must be one packed field.")
                    values = (found[0][0], data[found[0][2] : found[0][3]])
                else:
                    _append(inner, data[inner_begin:inner_end])
            _append(rest, _tag(INPUTS, len(inner)) + inner)
        else:
            _append(rest, data[begin:end])
    return bytes(rest), raw, values


def _first(fields: Iterator[tuple[int, int, int, int]]) -> Iterator[tuple[int, int, int, int]]:
    for count, field in enumerate(fields):
        yield field
        if count:
            return


def _append(rest: bytearray, part: memoryview | bytearray | bytes) -> None:
    if len(rest) + len(part) > MAX_MESSAGE:
        raise _too_large()
    rest += part


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, begin, begin of the value and end of each field in ``data[at:end]``."""
    while at < end:
        begin = at
        tag, at = _varint(data, at, end)
        kind, start = tag & 7, at
        if kind == LENGTH_DELIMITED:
            length, start = _varint(data, at, end)
            at = start + length
        elif kind in SIZES:
            at += SIZES[kind]
        elif kind == 0:
            _, at = _varint(data, at, end)
        else:
            raise Rejected(400, "the message is not a ModelInferRequest.")
        if at > end:
            raise Rejected(400, "the message is cut off.")
        yield tag >> 3, begin, start, at


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise Rejected(400, "the message is cut off.")


def _tag(number: int, length: int) -> bytes:
    result = bytearray((number << 3 | LENGTH_DELIMITED,))
    while length > 127:
        result.append(length & 127 | 128)
        length >>= 7
    result.append(length)
    return bytes(result)


def _varints(info: TensorInfo, shape: tuple[int, ...], packed: memoryview) -> Array:
    """Packed numbers from 0 to 255, which take a byte or two each."""
    wrong = Rejected(400, f"the data of input {info.name} is not {list(shape)} numbers within 0 to 255.")
    data = np.frombuffer(packed, np.uint8)
    if not len(data) or np.count_nonzero(data < 128) != np.prod(shape, dtype=np.int64):
        raise wrong
    result = np.empty(shape, np.uint8)
    flat, at, filled = result.reshape(-1), 0, 0
    while at < len(data):
        part = data[at : at + STEP]
        if part[-1] > 127 and at + STEP < len(data):  # in the middle of a number
            part = data[at : at + STEP + 1]
        at += len(part)
        last = part < 128
        more = ~last
        if part[-1] > 127 or (more[:-1] & more[1:]).any():
            raise wrong
        second = np.concatenate(([False], more[:-1]))  # the byte after one that says there is more
        if (part[second] > 1).any():
            raise wrong
        low = np.where(second, np.concatenate(([0], part[:-1] & 127)), part)
        numbers = (low | np.where(second, part << 7, 0).astype(np.uint8))[last]
        flat[filled : filled + len(numbers)] = numbers
        filled += len(numbers)
    return result


def _too_large() -> Rejected:
    return Rejected(413, f"a message takes at most {MAX_MESSAGE} bytes beside the pixels.")

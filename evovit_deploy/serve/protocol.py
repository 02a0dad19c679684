"""Inference requests and answers of the Open Inference Protocol (KServe v2) over HTTP, with the binary tensor extension.

A body is JSON, or JSON of ``Inference-Header-Content-Length`` bytes followed by raw tensors in the order of their
``binary_data_size``. No framework here: bytes in, bytes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.batching.requests import Array, Outputs
from .json_body import Numbers, numbers_of, read_document
from .rejections import Rejected
from .tensors import DATATYPES, TensorInfo, check, from_bytes, from_numbers

__all__ = ["InferRequest", "RequestedOutput", "encode_response", "parse_request", "pick_outputs", "timeout_of"]


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client wants, as raw bytes or as JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        id: The client's own, sent back; None where it gave none.
        images: [n, ...], as the model takes them.
        outputs: Outputs in the order of the answer.
        timeout: Seconds the client grants, or None.
    """

    id: str | None
    images: Array
    outputs: tuple[RequestedOutput, ...]
    timeout: float | None


def parse_request(
    body: bytes, header_length: str | None, info: TensorInfo, outputs: Sequence[TensorInfo], max_images: int
) -> InferRequest:
    """Read a request body.

    Args:
        body: Decompressed.
        header_length: The header ``Inference-Header-Content-Length``, or None.
        info: The model's input.
        outputs: The model's outputs.
        max_images: Images that a request may hold.

    Raises:
        Rejected: 400 and what is wrong.
    """
    document, found, binary = _split(body, header_length)
    parameters = _parameters(document, "the request")
    inputs = _objects(document, "inputs")
    if inputs is None or len(inputs) != 1:
        raise Rejected(400, f"a request has one input, {info.name}; this one has {len(inputs or ())}.")
    images = _input(inputs[0], info, found, binary, max_images)
    id_ = document.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise Rejected(400, "id must be text.")
    default = parameters.get("binary_data_output", False)
    wanted = _objects(document, "outputs")
    names = None if wanted is None else [_text(output.get("name"), "the name of an output") for output in wanted]
    binaries = {
        name: _parameters(output, f"output {name}").get("binary_data", default)
        for name, output in zip(names or (), wanted or ())
    }
    for output in wanted or ():
        if output.get("parameters", {}).get("classification"):
            raise Rejected(400, "the classification extension is not offered; use /v1/classify, or rank the logits.")
    if not all(isinstance(value, bool) for value in (default, *binaries.values())):
        raise Rejected(400, "binary_data and binary_data_output must be true or false.")
    return InferRequest(
        id=id_,
        images=images,
        outputs=tuple(
            RequestedOutput(output.name, binaries.get(output.name, default)) for output in pick_outputs(outputs, names)
        ),
        timeout=timeout_of(parameters),
    )


def pick_outputs(outputs: Sequence[TensorInfo], names: Sequence[str] | None) -> list[TensorInfo]:
    """Return the outputs that a client named, or all of them."""
    if not names:
        return list(outputs)
    known = {output.name: output for output in outputs}
    for name in names:
        if name not in known:
            raise Rejected(400, f"the model has no output called {name[:80]!r}; it has {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Return seconds in the parameter ``timeout``, which is in microseconds; None where it is missing or 0.

    Raises:
        Rejected: Not a whole number from 0, or a sequence, which models here do not know.
    """
    if parameters.get("sequence_id"):
        raise Rejected(400, "sequence_id: the models here keep no state between requests.")
    value = parameters.get("timeout", 0)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise Rejected(400, "the parameter timeout must be a whole number of microseconds.")
    return value / 1e6 or None


def encode_response(model: str, version: str, request: InferRequest, outputs: Outputs) -> tuple[bytes, int | None]:
    """Write an answer; the length of its JSON part is None when there is no other.

    Raises:
        Rejected: 422 when an output that JSON should carry is not finite.
    """
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for wanted in request.outputs:
        value = outputs[wanted.name]
        tensor: dict[str, Any] = {
            "name": wanted.name,
            "datatype": DATATYPES[value.dtype.name],
            "shape": list(value.shape),
        }
        if wanted.binary:
            raw.append(value.tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            if not np.isfinite(value).all():
                raise Rejected(422, f"{wanted.name} of these images is not finite, which JSON cannot carry.")
            tensor["data"] = value.ravel().tolist()
        tensors.append(tensor)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id is not None:
        document["id"] = request.id
    head = json.dumps(document, separators=(",", ":")).encode()
    return (b"".join((head, *raw)), len(head)) if raw else (head, None)


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], list[Numbers], memoryview]:
    size = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or len(header_length) > 18:
            raise Rejected(400, "Inference-Header-Content-Length is not a number of bytes.")
        size = int(header_length)
        if size > len(body):
            raise Rejected(400, f"Inference-Header-Content-Length is {size}, and the body has {len(body)} bytes.")
    document, found = read_document(body, size)
    return document, found, memoryview(body)[size:]


def _input(
    tensor: dict[str, Any], info: TensorInfo, found: list[Numbers], binary: memoryview, max_images: int
) -> Array:
    shape = check(info, tensor.get("name"), tensor.get("datatype"), tensor.get("shape"), max_images)
    parameters = _parameters(tensor, f"input {info.name}")
    if "shared_memory_region" in parameters:
        raise Rejected(400, "shared memory is not offered; send the data.")
    size = parameters.get("binary_data_size")
    if size is None:
        if len(binary):
            raise Rejected(400, f"{len(binary)} bytes follow the JSON, and no input has a binary_data_size.")
        if "data" not in tensor:
            raise Rejected(400, f"input {info.name} has neither data nor binary_data_size.")
        return from_numbers(info, shape, numbers_of(tensor["data"], found))
    if "data" in tensor:
        raise Rejected(400, f"input {info.name} has both data and binary_data_size.")
    if type(size) is not int or size != len(binary):
        raise Rejected(400, f"binary_data_size of input {info.name} must be {len(binary)}, the bytes after the JSON.")
    return from_bytes(info, shape, binary)


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]] | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Rejected(400, f"{key} must be a list of objects.")
    return value


def _parameters(document: dict[str, Any], what: str) -> dict[str, Any]:
    value = document.get("parameters", {})
    if not isinstance(value, dict):
        raise Rejected(400, f"the parameters of {what} must be an object.")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Rejected(400, f"{what} must be text.")
    return value

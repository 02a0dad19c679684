"""Requests as they go over the wire, made once and sent many times, and what their answers say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes.scores import scores_output

__all__ = ["Reply", "grpc_request", "http_request", "read_grpc", "read_http"]

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Reply:
    """What came back, the same for both protocols.

    Attributes:
        status: Of HTTP, or the name of the gRPC code.
        retry_after: It asks to come again later.
        id: The request's, sent back; None where there is none.
        logits: [n, classes] float32, the class scores; None for a refusal.
        reason: Of a refusal.
    """

    status: int | str
    retry_after: bool = False
    id: str | None = None
    logits: NDArray[Any] | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Answered, not refused."""
        return self.logits is not None

    @property
    def refused(self) -> bool:
        """Refused because the service has no room."""
        return self.status in (503, "UNAVAILABLE")

    @property
    def late(self) -> bool:
        """Given up at its deadline."""
        return self.status in (504, "DEADLINE_EXCEEDED")


def http_request(
    model: str, images: NDArray[Any], *, id: str | None = None, timeout_us: int = 0, host: str = "localhost"
) -> bytes:
    """Return one HTTP/1.1 request with a binary tensor, asking for a binary answer.

    Args:
        model: Name of the model.
        images: [n, ...] uint8 or float32.
        id: Comes back in the answer.
        timeout_us: Microseconds that the client grants; 0 leaves it to the service.
        host: Of the ``Host`` header.
    """
    data = images.tobytes()
    tensor = {"name": "images", "datatype": DATATYPES[images.dtype.name], "shape": list(images.shape)}
    document: dict[str, Any] = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True, **({"timeout": timeout_us} if timeout_us else {})},
        **({} if id is None else {"id": id}),
    }
    head = json.dumps(document, separators=(",", ":")).encode()
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/octet-stream",
        f"{HEADER_LENGTH}: {len(head)}",
        f"Content-Length: {len(head) + len(data)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + head + data


def read_http(status: int, headers: dict[str, str], body: bytes) -> Reply:
    """Return the answer to :func:`http_request`; header names are lower case.

    Raises:
        ValueError, LookupError: It is not what the protocol says.
    """
    if status != 200:
        return Reply(status, "retry-after" in headers, reason=str(json.loads(body)["error"]))
    size = int(headers[HEADER_LENGTH.lower()])
    document, offset = json.loads(body[:size]), size
    name = scores_output(o["name"] for o in document["outputs"] if o["datatype"] == "FP32" and len(o["shape"]) == 2)
    for output in document["outputs"]:
        length = output["parameters"]["binary_data_size"]
        if output["name"] == name:
            logits = np.frombuffer(body, np.float32, length // 4, offset).reshape(output["shape"])
            return Reply(status, id=document.get("id"), logits=logits)
        offset += length
    raise ValueError("the answer has no class scores")


def grpc_request(model: str, images: NDArray[Any], *, id: str | None = None, timeout_us: int = 0) -> Any:
    """Return the same as a gRPC message."""
    from tritonclient.grpc import service_pb2 as pb

    request = pb.ModelInferRequest(model_name=model, id=id or "")
    request.inputs.add(name="images", datatype=DATATYPES[images.dtype.name], shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    return request


def read_grpc(response: Any) -> Reply:
    """Return the answer to :func:`grpc_request`."""
    name = scores_output(o.name for o in response.outputs if o.datatype == "FP32" and len(o.shape) == 2)
    for output, raw in zip(response.outputs, response.raw_output_contents):
        if output.name == name:
            return Reply(
                "OK", id=response.id or None, logits=np.frombuffer(raw, np.float32).reshape(list(output.shape))
            )
    raise ValueError("the answer has no class scores")

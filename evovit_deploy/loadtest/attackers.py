"""What clients do that try to stop a service, bounded in size and time; the kinds by name."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .http2 import compressed_call, send_part, unread_calls
from .process import Served
from .stand_in import NAME, numbered
from .wire import http_request

__all__ = ["ATTACKERS", "SIZE", "Attacker"]

MIB = 1 << 20
SIZE = 64  # pixels of the stand-in's images
SENDING = 1.0  # seconds that a service has to take what is sent to it
LINES = 250  # of log for each attacker: one of them fills the pipe
Attacker = Callable[[Served, contextlib.ExitStack], None]


def _connect(address: str, stack: contextlib.ExitStack, data: bytes = b"") -> socket.socket:
    """Open a connection that stays open until the end, the first bytes sent as far as the service takes them."""
    host, _, port = address.rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=SENDING))
    with contextlib.suppress(OSError):
        connection.sendall(data)
    return connection


def _post(path: str, body: bytes, length: int | None = None, coding: str = "identity") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: {coding}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


@functools.cache  # made once, so that the machine's time is the service's
def _lists() -> bytes:
    tensor = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,64,64,3],"data":['
    return gzip.compress(tensor + b"[]," * (4 * MIB) + b"[]]}]}", 1)


def _json_bomb(served: Served, stack: contextlib.ExitStack) -> None:
    _connect(served.http, stack, _post(f"/v2/models/{NAME}/infer", _lists(), coding="gzip"))


@functools.cache
def _strings() -> bytes:
    tensor = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,64,64,3],"data":["' + b"x" * MIB + b'"'
    return gzip.compress(tensor + b',""' * 1000 + b"]}]}", 1)


def _json_strings(served: Served, stack: contextlib.ExitStack) -> None:
    _connect(served.http, stack, _post(f"/v2/models/{NAME}/infer", _strings(), coding="gzip"))


def _slow_heads(served: Served, stack: contextlib.ExitStack) -> None:
    for _ in range(50):
        _connect(served.http, stack, b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: a")


def _endless_head(served: Served, stack: contextlib.ExitStack) -> None:
    connection = _connect(served.http, stack, b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
    with contextlib.suppress(OSError):
        for _ in range(64):
            connection.sendall(b"a:\r\n" * (MIB // 4))


def _slow_bodies(served: Served, stack: contextlib.ExitStack) -> None:
    for _ in range(4):
        _connect(served.http, stack, _post("/v1/classify", bytes(8 * MIB), 9 * MIB))


def _image_of_scans(served: Served, stack: contextlib.ExitStack) -> None:
    def segment(marker: int, data: bytes) -> bytes:
        return bytes((255, marker)) + struct.pack(">H", len(data) + 2) + data

    tables = segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, 4000, 4000, 1) + b"\1\x11\0")
    scans = (segment(0xDA, b"\1\1\0\0\0\0") + b"\0") + segment(0xDA, b"\1\1\0\1\x3f\0") * 20_000
    image = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + frame + tables + scans + b"\xff\xd9"
    _connect(served.http, stack, _post("/v1/classify", image))


def _grpc_call(served: Served, stack: contextlib.ExitStack, send: Callable[[Any], Any]) -> None:
    import grpc

    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    channel = stack.enter_context(grpc.insecure_channel(served.grpc, options=options))
    send(channel)


@functools.cache
def _parts() -> bytes:
    return gzip.compress(b"\x2a\0" * (6 * MIB), 9)


def _grpc_bomb(served: Served, stack: contextlib.ExitStack) -> None:
    _connect(served.grpc, stack, compressed_call("ModelInfer", _parts()))


def _grpc_unfinished(served: Served, stack: contextlib.ExitStack) -> None:
    ended = threading.Event()
    stack.callback(ended.set)

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    method = "/inference.GRPCInferenceService/ModelInfer"
    for _ in range(5):
        _grpc_call(served, stack, lambda each: each.stream_unary(method).future(nothing()))


def _grpc_unread(served: Served, stack: contextlib.ExitStack) -> None:
    _connect(served.grpc, stack, unread_calls("ServerMetadata", b"", 100))


def _grpc_half(served: Served, stack: contextlib.ExitStack) -> None:
    connection = _connect(served.grpc, stack)
    with contextlib.suppress(OSError):
        send_part(connection, "ModelInfer", bytes(8 * MIB), 9 * MIB, seconds=2 * SENDING)


def _long_waits(served: Served, stack: contextlib.ExitStack) -> None:
    request = http_request(NAME, numbered(0, SIZE), timeout_us=(1 << 63) - 1)
    for _ in range(4):
        _connect(served.http, stack, request)


def _stalled_log(served: Served, stack: contextlib.ExitStack) -> None:
    served.stall()
    connection = http.client.HTTPConnection(served.http, timeout=5.0)
    stack.callback(connection.close)
    with contextlib.suppress(OSError, http.client.HTTPException):
        for _ in range(LINES):
            connection.request("GET", "/" + "x" * 300)
            connection.getresponse().read()


ATTACKERS: dict[str, Attacker] = {
    "JSON that unpacks to 12 MiB of lists": _json_bomb,
    "JSON of strings that ask for 4 GB": _json_strings,
    "heads that stop half-way": _slow_heads,
    "heads without end": _endless_head,
    "bodies that stop half-way": _slow_bodies,
    "JPEG of 20,000 scans": _image_of_scans,
    "gRPC message of six million parts": _grpc_bomb,
    "gRPC calls without a message": _grpc_unfinished,
    "gRPC messages that stop half-way": _grpc_half,
    "gRPC answers that nobody reads": _grpc_unread,
    "requests that may wait for 300,000 years": _long_waits,
    "a log that nobody reads": _stalled_log,
}

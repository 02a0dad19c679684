"""Attacks on a service by clients of the loopback address, with a good client beside them: none stops it, and what each costs.

The attacks are bounded in size and time, and the service is one around a stand-in that this program started.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import itertools
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..serve.memory import worst_memory
from ..serve.settings import ServiceSettings
from .clients import HttpPool
from .process import Served, serving
from .results import surroundings
from .stand_in import NAME, StandIn, numbered
from .tally import outcome, total
from .wire import http_request, unread_calls

__all__ = ["ATTACKS", "attack", "broken", "run_attacks"]

MIB = 1 << 20
SIZE = 64  # pixels of the stand-in's images
DRAIN = 5  # seconds, of the service
GOOD = 40  # requests of the good client during an attack
LIVE = 0.5  # seconds within which liveness has to answer
GRACE = 2.0  # seconds after the drain in which the process has to be gone
CLIENTS = (1, 20)
PAUSE = 0.05  # seconds between questions
SETTINGS: dict[str, Any] = {"max_batch": 8, "max_queue": 64, "max_request_mib": 16, "max_body_mib": 64, "drain": DRAIN}
SETTINGS |= {"max_connections": 200, "max_pixels": 16_000_000}
Attacker = Callable[[Served, contextlib.ExitStack], None]


def _connect(served: Served, stack: contextlib.ExitStack, data: bytes = b"") -> socket.socket:
    """Open a connection that stays open until the end, the first bytes sent as far as the service takes them."""
    host, _, port = served.http.rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=1.0))
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
    _connect(served, stack, _post(f"/v2/models/{NAME}/infer", _lists(), coding="gzip"))


def _slow_heads(served: Served, stack: contextlib.ExitStack) -> None:
    for _ in range(50):
        _connect(served, stack, b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: a")


def _endless_head(served: Served, stack: contextlib.ExitStack) -> None:
    connection = _connect(served, stack, b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
    with contextlib.suppress(OSError):
        for _ in range(64):
            connection.sendall(b"a:\r\n" * (MIB // 4))


def _slow_bodies(served: Served, stack: contextlib.ExitStack) -> None:
    for _ in range(4):
        _connect(served, stack, _post("/v1/classify", bytes(8 * MIB), 9 * MIB))


def _image_of_scans(served: Served, stack: contextlib.ExitStack) -> None:
    def segment(marker: int, data: bytes) -> bytes:
        return bytes((255, marker)) + struct.pack(">H", len(data) + 2) + data

    tables = segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, 4000, 4000, 1) + b"\1\x11\0")
    scans = (segment(0xDA, b"\1\1\0\0\0\0") + b"\0") + segment(0xDA, b"\1\1\0\1\x3f\0") * 20_000
    image = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + frame + tables + scans + b"\xff\xd9"
    _connect(served, stack, _post("/v1/classify", image))


def _grpc_call(served: Served, stack: contextlib.ExitStack, send: Callable[[Any], Any]) -> None:
    import grpc

    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    channel = stack.enter_context(grpc.insecure_channel(served.grpc, options=options))
    send(channel)


def _grpc_bomb(served: Served, stack: contextlib.ExitStack) -> None:
    import grpc

    message, method = b"\x2a\0" * (6 * MIB), "/inference.GRPCInferenceService/ModelInfer"
    _grpc_call(served, stack, lambda each: each.unary_unary(method).future(message, compression=grpc.Compression.Gzip))


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
    host, _, port = served.grpc.rpartition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=1.0))
    with contextlib.suppress(OSError):
        connection.sendall(unread_calls("ServerMetadata", b"", 100))


ATTACKS: dict[str, Attacker] = {
    "JSON that unpacks to 12 MiB of lists": _json_bomb,
    "heads that stop half-way": _slow_heads,
    "heads without end": _endless_head,
    "bodies that stop half-way": _slow_bodies,
    "JPEG of 20,000 scans": _image_of_scans,
    "gRPC message of six million parts": _grpc_bomb,
    "gRPC calls without a message": _grpc_unfinished,
    "gRPC answers that nobody reads": _grpc_unread,
}


@dataclass
class Probe:
    """Asks for liveness again and again, on a connection of its own each time."""

    served: Served
    asked: int = 0
    failed: int = 0
    worst: float = 0.0
    stopped: bool = False

    def run(self) -> None:
        """Ask until stopped."""
        while not self.stopped:
            started = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://{self.served.http}/v2/health/live", timeout=30) as answer:
                    self.failed += answer.status != 200
            except OSError:
                self.failed += 1
            self.asked += 1
            self.worst = max(self.worst, time.monotonic() - started)
            time.sleep(PAUSE)


async def attack(attacker: Attacker, clients: int) -> dict[str, Any]:
    """Let so many clients attack at once while a good one goes on, then end the service while they are still there.

    Returns:
        What became of the good client's requests, and of liveness; peak of memory and its bound, MiB; seconds from SIGTERM to
        the end of the process.
    """
    about = StandIn(0.002, SIZE, settings=SETTINGS)
    with serving(about.command) as served, contextlib.ExitStack() as stack:
        pool, numbers = HttpPool(served.http), iter(range(1, 1 << 20))

        async def good(count: int) -> list[str]:
            ends = []
            for number in (next(numbers) for _ in range(count)):
                request = http_request(NAME, numbered(number, SIZE), id=str(number))
                ends.append(await outcome(lambda request=request: pool.infer(request), number))  # type: ignore[misc]
                await asyncio.sleep(PAUSE)
            return ends

        before = await good(3)
        idle = served.peak_bytes() or 0
        probe = Probe(served)
        watching = asyncio.ensure_future(asyncio.to_thread(probe.run))
        attacking = [asyncio.ensure_future(asyncio.to_thread(attacker, served, stack)) for _ in range(clients)]
        during = await good(GOOD)
        await asyncio.gather(*attacking)
        after = await good(3)
        probe.stopped = True
        await watching
        peak = (served.peak_bytes() or 0) - idle
        pool.close()
        started = time.monotonic()
        served.signal()
        code = await asyncio.to_thread(served.wait)
        settings = ServiceSettings(**SETTINGS)
        return {
            **total(before + during + after),
            "clients": clients,
            "unanswered_before_or_after": sum(end != "answered" for end in before + after),
            "live_asked": probe.asked,
            "live_failed": probe.failed,
            "live_worst_s": round(probe.worst, 3),
            "peak_mib": round(peak / MIB),
            "bound_mib": round(sum(worst_memory(settings, SIZE * SIZE * 3).values()) / MIB),
            "stop_s": round(time.monotonic() - started, 2),
            "exit_code": code,
        }


def broken(counts: dict[str, Any], *, timed: bool = True) -> list[str]:
    """Say what does not hold; without ``timed``, only what does not depend on how busy the machine is."""
    names = ("crossed", "lost", "failed", "late", "other", "unanswered_before_or_after", "live_failed", "exit_code")
    found = [f"{name} is {counts[name]}" for name in names if counts[name]]
    if counts["peak_mib"] > counts["bound_mib"]:
        found.append(f"memory grew by {counts['peak_mib']} MiB, beyond {counts['bound_mib']} MiB")
    if timed and counts["live_worst_s"] > LIVE:
        found.append(f"liveness took {counts['live_worst_s']} s")
    if timed and counts["stop_s"] > DRAIN + GRACE:
        found.append(f"the end took {counts['stop_s']} s")
    return found


def run_attacks(*, command: str = "", tell: Callable[[float, str], None] = lambda share, text: None) -> dict[str, Any]:
    """Run every attack with one attacker and with twenty.

    Args:
        command: For the record.
        tell: Called before each with the share done and its name.

    Returns:
        A record: the machine, and for each attack what it did and what does not hold.
    """
    environment = surroundings(None)
    found: dict[str, dict[str, Any]] = {}
    for step, (clients, name) in enumerate(itertools.product(CLIENTS, ATTACKS)):
        title = f"{name}, {clients} client{'s' * (clients > 1)}"
        tell(step / (len(CLIENTS) * len(ATTACKS)), title)
        counts = asyncio.run(attack(ATTACKS[name], clients))
        found[title] = {**counts, "broken": broken(counts)}
    tell(1.0, "done")
    return {"kind": "serve-attacks", "schema": 1, "command": command, "environment": environment, "scenarios": found}

"""Bodies of HTTP requests and answers: read within limits of size and time, decompressed, compressed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .capacity import Visit
from .rejections import Rejected
from .waiting import result_of

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["compress", "read_body", "unpack", "unpacked"]

WINDOWS = {"gzip": 31, "deflate": 15}  # of zlib, by the content coding
WORTH_IT = 1024  # bytes; below, a compressed answer is hardly smaller
SLICE, STEP = 1 << 16, 1 << 20  # bytes that are decompressed at once, and that come of them at most
FAST = 1  # compression level: an answer should not wait for its compression


async def read_body(request: Request, visit: Visit, limit: int, seconds: float) -> bytes:
    """Return the body of a request, decompressed; its memory is held by the visit.

    Raises:
        Rejected: 413 for more than ``limit`` bytes, before or after decompression; 408 if it takes longer than ``seconds``;
            415 for a content coding other than gzip and deflate; 400 if it is damaged; 499, which only the log sees, if the
            client goes away.
        Overloaded: There is no memory for it.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*WINDOWS, "identity"):
        raise Rejected(415, "the content coding must be gzip, deflate or none.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    try:
        body = await result_of(_read(request, visit, limit), seconds=seconds)
    except asyncio.TimeoutError:
        raise Rejected(408, f"the request did not arrive within {seconds:g} s.") from None
    return body if coding == "identity" else await unpacked(body, visit, coding, limit)


async def unpacked(data: bytes, visit: Visit, coding: str, limit: int) -> bytes:
    """Undo gzip or deflate in threads; the visit holds the result's memory in the place of the data's.

    Raises:
        Rejected: As :func:`unpack`.
        Overloaded: There is no memory for it.
    """
    result: list[bytes] = []
    parts = unpack(data, coding, limit)
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        visit.take(len(part))
        result.append(part)
    visit.take(-len(data))
    return b"".join(result)


async def _read(request: Request, visit: Visit, limit: int) -> bytes:
    from starlette.requests import ClientDisconnect

    size = 0
    visit.arrive()
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            visit.take(len(part))
            visit.parts.append(part)
    except ClientDisconnect:
        raise Rejected(499, "the client went away.") from None
    except asyncio.CancelledError:
        if visit.lost:
            raise visit.refused() from None
        raise
    return visit.arrived()


def unpack(data: bytes, coding: str, limit: int) -> Iterator[bytes]:
    """Undo gzip or deflate in parts of at most :data:`STEP` bytes.

    Raises:
        Rejected: 413 beyond ``limit`` bytes; 400 for damaged data.
    """
    stream, view = zlib.decompressobj(WINDOWS[coding]), memoryview(data)
    size, at, rest = 0, 0, b""
    while True:
        if not rest:
            rest, at = bytes(view[at : at + SLICE]), at + SLICE
        try:
            part = stream.decompress(rest, STEP)
        except zlib.error:
            raise Rejected(400, f"the body is not what {coding} makes.") from None
        rest = stream.unconsumed_tail
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if part:
            yield part
        elif stream.eof or at >= len(data):
            break
    if not stream.eof or stream.unused_data or at < len(data):
        raise Rejected(400, f"the {coding} body is cut off or followed by more.")


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """Return the body, compressed if the client's ``Accept-Encoding`` allows and it is worth it, and the coding."""
    if len(body) < WORTH_IT:
        return body, None
    offers = {offer.partition(";")[0].strip().lower(): offer.replace(" ", "") for offer in accepted.split(",")}
    for coding, window in WINDOWS.items():
        if coding in offers and not offers[coding].endswith((";q=0", ";q=0.0")):
            stream = zlib.compressobj(FAST, zlib.DEFLATED, window)
            return stream.compress(body) + stream.flush(), coding
    return body, None


def _too_large(limit: int) -> Rejected:
    return Rejected(413, f"the request is larger than {limit} bytes.")

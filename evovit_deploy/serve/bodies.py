"""Bodies of HTTP requests and answers: read within limits of size and time, decompressed, compressed."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from .rejections import Rejected
from .waiting import result_of

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["compress", "decompress", "read_body"]

WINDOWS = {"gzip": 31, "deflate": 15}  # of zlib, by the content coding
WORTH_IT = 1024  # bytes; below, a compressed answer is hardly smaller
FAST = 1  # compression level: an answer should not wait for its compression


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body of a request, decompressed.

    Raises:
        Rejected: 413 for more than ``limit`` bytes, before or after decompression; 408 if it takes longer than ``seconds``;
            415 for a content coding other than gzip and deflate; 400 if it is damaged; 499, which only the log sees, if the
            client goes away.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in (*WINDOWS, "identity"):
        raise Rejected(415, "the content coding must be gzip, deflate or none.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    try:
        body = await result_of(_read(request, limit), seconds=seconds)
    except asyncio.TimeoutError:
        raise Rejected(408, f"the request did not arrive within {seconds:g} s.") from None
    return body if coding == "identity" else decompress(body, coding, limit)


async def _read(request: Request, limit: int) -> bytes:
    from starlette.requests import ClientDisconnect

    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise Rejected(499, "the client went away.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decompress(data: bytes, coding: str, limit: int) -> bytes:
    """Undo gzip or deflate, never writing more than ``limit`` bytes."""
    stream = zlib.decompressobj(WINDOWS[coding])
    try:
        result = stream.decompress(data, limit + 1)
    except zlib.error:
        raise Rejected(400, f"the body is not what {coding} makes.") from None
    if len(result) > limit:
        raise _too_large(limit)
    if not stream.eof or stream.unused_data:
        raise Rejected(400, f"the {coding} body is cut off or followed by more.")
    return result


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """The body, compressed if the client's ``Accept-Encoding`` allows and it is worth it, and the coding."""
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

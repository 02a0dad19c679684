"""Limits of HTTP connections that uvicorn does not have: how many, how large a head, how long it may take, how long an answer.

uvicorn's ``limit_concurrency`` answers 503 to health checks too, and it has no limit of a head's size or time with httptools.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .logs import access
from .settings import ServiceSettings

__all__ = ["Guard", "LimitedProtocol"]

MAX_PIPELINED = 16  # requests of a connection that may wait for the one before them
SWEEP = 1.0  # seconds between looks at the connections
REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Guard:
    """The HTTP connections of one service, and their limits.

    Args:
        settings: The limits.
        connections: How many may be open.
    """

    def __init__(self, settings: ServiceSettings, connections: int) -> None:
        self.head_bytes = settings.max_header_kib << 10
        self._limit, self._settings = connections, settings
        self._open: set[LimitedProtocol] = set()
        self._waiting: dict[LimitedProtocol, float] = {}  # without a request, since when; oldest first

    async def watch(self) -> None:
        """Look after the connections for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            self.sweep(time.monotonic())

    def opened(self, connection: LimitedProtocol) -> None:
        """One more; beyond the limit the one that has waited longest for its request goes, be it this one."""
        self._open.add(connection)
        self.waits(connection)
        if len(self._open) > self._limit:
            next(iter(self._waiting)).refuse(503, "too many connections are open; try again later.")

    def closed(self, connection: LimitedProtocol) -> None:
        """One less."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def waits(self, connection: LimitedProtocol) -> None:
        """It has no request now."""
        self._waiting[connection] = time.monotonic()

    def works(self, connection: LimitedProtocol) -> None:
        """The head of a request is here."""
        self._waiting.pop(connection, None)

    def sweep(self, now: float) -> None:
        """End what took too long."""
        settings = self._settings
        for connection, since in list(self._waiting.items()):
            if connection.head_since is not None:
                if now - connection.head_since > settings.header_timeout:
                    connection.refuse(
                        408, f"the head of the request did not arrive within {settings.header_timeout:g} s."
                    )
            elif now - since > settings.idle_timeout:
                connection.end()
        for connection in list(self._open):
            if connection.stalled(now) > settings.body_timeout:
                connection.transport.abort()


class LimitedProtocol(HttpToolsProtocol):
    """A connection of uvicorn's under a :class:`Guard`, which subclasses have as ``guard``.

    Attributes:
        head_since: When the first byte of the head came that is incomplete; None between requests.
    """

    guard: Guard

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = logging.getLogger("evovit.serve.http")  # uvicorn's own says less than the access log
        self.head_since: float | None = None
        self._head = 0  # bytes of it
        self._in_message = False
        self._beside = 0  # bytes since the last part of the body: of trailers, or around chunks
        self._unsent, self._unsent_since = 0, 0.0

    def connection_made(self, transport: Any) -> None:
        """Count it."""
        super().connection_made(transport)
        self.guard.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.guard.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, the head of a request in pieces that keep to its limit."""
        while data and not self.transport.is_closing():
            if self._in_message:
                if self._beside > self.guard.head_bytes:
                    self.refuse(431, f"the trailer of the request is larger than {self.guard.head_bytes} bytes.")
                    return
                part, data = data, b""
                self._beside += len(part)  # body takes it back
            else:
                if self.head_since is None:
                    self.head_since = time.monotonic()
                room = self.guard.head_bytes - self._head
                if room <= 0:
                    self.refuse(431, f"the head of the request is larger than {self.guard.head_bytes} bytes.")
                    return
                part, data = data[:room], data[room:]
                self._head += len(part)
            super().data_received(part)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._in_message is False and self.head_since is None:  # behind another one in the same data
            self.head_since = time.monotonic()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is here: the request begins, or waits for the one before it."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self._in_message, self.head_since, self._head, self._beside = True, None, 0, 0
        super().on_headers_complete()
        self.guard.works(self)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is here."""
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out: the next request may come."""
        super().on_response_complete()
        if not self.pipeline and (self.cycle is None or self.cycle.response_complete):
            if self.head_since is not None:
                self.head_since = time.monotonic()
            self.guard.waits(self)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for what is not HTTP."""
        self.refuse(400, "the request is not HTTP that can be read.")

    def refuse(self, status: int, reason: str) -> None:
        """Answer without a request, and close."""
        head = self.head_since is not None or self._in_message
        client = self.client[0] if self.client else None
        access(time=round(time.time(), 3), protocol="http", client=client, status=status, reason=reason)
        answering = self.cycle is not None and not self.cycle.response_complete
        if head and not answering:  # else the client would take it for the answer that is on its way
            body = json.dumps({"error": reason}).encode()
            self.transport.write(
                f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
        self.end()

    def end(self) -> None:
        """Close, once what was written is out."""
        self.guard.works(self)
        self.transport.close()

    def stalled(self, now: float) -> float:
        """Seconds for which the client has not read what was written for it."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        return now - self._unsent_since

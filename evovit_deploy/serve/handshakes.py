"""TLS connections while they shake hands: a limited number of them, for a limited time.

asyncio's own server takes any number, of which nobody hears before their handshake has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

__all__ = ["TlsListener"]

PAUSE = 0.1  # seconds after a connection could not be taken, as when no file is free
log = logging.getLogger("evovit.serve")


class TlsListener:
    """Takes connections of a socket and hands those that speak TLS over; has what uvicorn asks of a server.

    Args:
        listening: Bound, not blocking, not listening yet.
        backlog: Connections that the system holds until they are taken.
        context: Certificate and key.
        protocol: Makes what handles a connection.
        most: Handshakes at once; beyond, the one that has taken longest goes.
        seconds: That each may take.
    """

    def __init__(
        self, listening: socket.socket, backlog: int, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol], *,
        most: int, seconds: float,
    ) -> None:  # fmt: skip
        self._listening, self._context, self._protocol = listening, context, protocol
        self._most, self._seconds = most, seconds
        self._shaking: dict[asyncio.Task[None], None] = {}  # oldest first
        listening.listen(backlog)
        self._accepting = asyncio.ensure_future(self._accept())

    @property
    def shaking(self) -> int:
        """Handshakes under way."""
        return len(self._shaking)

    def close(self) -> None:
        """Take no more connections, and drop those that are not ready."""
        for task in (self._accepting, *self._shaking):
            task.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is left of it."""
        await asyncio.wait((self._accepting, *self._shaking))

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("a connection could not be taken: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            task = asyncio.ensure_future(self._shake(connection))
            self._shaking[task] = None
            task.add_done_callback(lambda done: self._shaking.pop(done, None))
            del task, connection
            if len(self._shaking) > self._most:
                oldest = next(iter(self._shaking))
                del self._shaking[oldest]
                oldest.cancel()
            await asyncio.sleep(0)  # a handshake begins before it can be cancelled, and others have their turn

    async def _shake(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # it takes too long, goes away, or speaks no TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=self._context, ssl_handshake_timeout=self._seconds
            )

"""Streams of inference requests over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from ..errors import Overloaded
from .capacity import Visit

__all__ = ["Streams"]

AHEAD = 32  # requests of one stream that may be at work at once


class Streams:
    """The open streams of a service: so many at most, since each may be receiving a message of any size.

    Args:
        places: Streams that may be open.
    """

    def __init__(self, places: int) -> None:
        self._places, self._open, self._stopping = places, 0, False
        self._readers: set[asyncio.Task[None]] = set()

    async def answers(
        self, messages: AsyncIterator[bytes], peer: str, answer: Callable[[bytes], Awaitable[tuple[bytes, Visit]]]
    ) -> AsyncIterator[bytes]:
        """Return what ``answer`` makes of each message, several at once, in their order.

        Args:
            messages: Of the client.
            peer: The client.
            answer: Gives an answer and the visit that holds its memory, which leaves when the client has read it.

        Raises:
            Overloaded: Too many streams are open; or, once everything that came is answered, the service stops.
        """
        if self._stopping:
            raise Overloaded("the service stops.")
        if self._open >= self._places:
            raise Overloaded(f"{self._open} streams are open, which is the limit; try again later.")
        pending: asyncio.Queue[asyncio.Future[tuple[bytes, Visit]] | None] = asyncio.Queue(AHEAD)

        async def read() -> None:
            try:
                async for message in messages:
                    await pending.put(asyncio.ensure_future(answer(message)))
                    del message
            finally:
                await pending.put(None)

        self._open += 1
        reader = asyncio.ensure_future(read())
        self._readers.add(reader)
        try:
            while (task := await pending.get()) is not None:
                made, visit = await task
                del task
                try:
                    visit.goes_out(peer)
                    yield made
                finally:
                    visit.leave()
                del made, visit
        finally:
            self._open -= 1
            self._readers.discard(reader)
            reader.cancel()
            while not pending.empty():
                left = pending.get_nowait()
                if left is not None and not left.cancel() and not left.cancelled() and left.exception() is None:
                    left.result()[1].leave()  # it was made, and nobody will read it
        if self._stopping:
            raise Overloaded("the service stops.")

    def stop(self) -> None:
        """Read no more; each stream ends when what it sent is answered."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()

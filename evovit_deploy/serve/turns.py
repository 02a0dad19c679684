"""Turns at receiving, where the size of what comes is known only when it is here: gRPC gives out whole messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import Overloaded
from .capacity import Visit

__all__ = ["MessageTurns"]

T = TypeVar("T")


class MessageTurns:
    """At most ``places`` messages arrive at once, so that memory is bounded; others wait, first come, first served.

    Args:
        places: Messages that arrive at once.
        queue: Calls that may wait for their turn.
        patience: Seconds after which a message that still arrives is given up if others wait.
    """

    def __init__(self, places: int, queue: int, patience: float) -> None:
        self._places, self._queue, self._patience = places, queue, patience
        self._reading: dict[Visit, float] = {}  # since when, oldest first
        self._waiting: deque[tuple[asyncio.Future[None], Visit]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, visit: Visit, receive: Callable[[], Awaitable[T]]) -> T:
        """Return what ``receive()`` gives, in its turn.

        Raises:
            Overloaded: Too many wait, or this one took long while others waited.
        """
        visit.arrive()
        try:
            if len(self._reading) < self._places:
                self._reading[visit] = time.monotonic()
            else:
                await self._turn(visit)
            return await receive()
        except asyncio.CancelledError:
            if visit.lost:
                raise Overloaded("the message took long to arrive while others waited; try again later.") from None
            raise
        finally:
            visit.arrived()
            if self._reading.pop(visit, None) is not None:
                self._next()

    async def _turn(self, visit: Visit) -> None:
        if len(self._waiting) >= self._queue:
            raise Overloaded(f"{len(self._waiting)} calls wait to send their message; try again later.")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, visit))
        self._watch()
        await turn

    def _next(self) -> None:
        while self._waiting and len(self._reading) < self._places:
            turn, visit = self._waiting.popleft()
            if not turn.done():  # else it was cancelled
                self._reading[visit] = time.monotonic()
                turn.set_result(None)

    def _watch(self) -> None:
        if self._timer is None and self._reading:
            left = next(iter(self._reading.values())) + self._patience - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        oldest, since = next(iter(self._reading.items()), (None, 0.0))
        if oldest is not None and time.monotonic() >= since + self._patience:
            del self._reading[oldest]
            oldest.lose()
            self._next()
        if self._waiting:
            self._watch()

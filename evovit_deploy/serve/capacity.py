"""What requests hold of a service while they are in it: a place among those at work, and memory for what they sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import Overloaded

if TYPE_CHECKING:
    from .models import ServedModel

__all__ = ["Capacity", "Visit"]


class Capacity:
    """Places and memory of one service; used in its event loop only.

    Args:
        places: Requests that may be at work at once. One whose body still arrives has no place.
        memory: Bytes that bodies may take together.

    Attributes:
        at_work: Places taken.
        held: Bytes taken.
    """

    def __init__(self, places: int, memory: int) -> None:
        self.places, self.memory = places, memory
        self.at_work = self.held = 0
        self.arriving: dict[Visit, None] = {}  # oldest first
        self.leaving: dict[Visit, int] = {}  # answers of gRPC on their way to clients: how often `unread` saw them

    @property
    def idle(self) -> bool:
        """Whether no request is at work or arrives, and no answer is on its way."""
        return not self.at_work and not self.arriving and not self.leaving

    def unread(self, most: float, patience: float) -> list[Visit]:
        """Return the answers that clients have not read in time; asked at intervals, in which time is counted.

        So a service that is behind itself does not take its own delay for its clients'.

        Args:
            most: Intervals that a client has.
            patience: That it has when half of the memory or of the places is used.
        """
        full = 2 * self.held > self.memory or 2 * len(self.leaving) > self.places
        limit = max(1.0, min(most, patience) if full else most)
        for visit in self.leaving:
            self.leaving[visit] += 1
        return [visit for visit, seen in self.leaving.items() if seen > limit]

    def check(self) -> None:
        """Raise Overloaded if no place is free."""
        if self.at_work >= self.places:
            raise Overloaded(f"{self.at_work} requests are at work, which is the limit; try again later.")

    def make_room(self, visit: Visit) -> None:
        """Raise Overloaded unless the memory suffices, if need be without the bodies that have been arriving for longest."""
        while self.held > self.memory:
            oldest = next((other for other in self.arriving if other.size), visit)
            if oldest is visit:
                raise no_memory(self.memory)
            oldest.lose()

    def lose_arriving(self) -> None:
        """Throw away what has not arrived: the service stops."""
        for visit in list(self.arriving):
            visit.lose()


class Visit:
    """One request, and what the log says about it.

    Attributes:
        model, images, id, peer: Gathered on the way; None while unknown.
        parts: Of a body that arrives.
        size: Bytes held.
        lost: The body was thrown away to make room for others.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self.model: ServedModel | None = None
        self.images: int | None = None
        self.id: str | None = None
        self.peer: str | None = None
        self.parts: list[bytes] = []
        self.lost = False
        self._task: asyncio.Task[object] | None = None
        self.size, self._at_work = 0, False

    def check(self) -> None:
        """Raise Overloaded if no place is free now."""
        self._capacity.check()

    def enter(self) -> None:
        """Take a place.

        Raises:
            Overloaded: None is free.
        """
        if not self._at_work:
            self._capacity.check()
            self._capacity.at_work += 1
            self._at_work = True

    def arrive(self) -> None:
        """The body comes in the current task, which is cancelled if others need its memory."""
        self._task = asyncio.current_task()
        self._capacity.arriving[self] = None

    def arrived(self) -> bytes:
        """The whole body is here; returns it."""
        self._capacity.arriving.pop(self, None)
        self._task = None
        parts, self.parts = self.parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, size: int) -> None:
        """Hold memory, bytes; a negative size gives it back.

        Raises:
            Overloaded: There is not enough.
        """
        self.size += size
        self._capacity.held += size
        if size > 0:
            self._capacity.make_room(self)

    def lose(self) -> None:
        """Throw away a body that still arrives."""
        self.lost, task = True, self._task
        self._forget()
        if task is not None:
            task.cancel()

    def answered(self, size: int) -> None:
        """The work is done: the place is free again, and the answer holds memory, bytes, until it is out.

        Raises:
            Overloaded: There is not enough.
        """
        self._give_place()
        self.take(size - self.size)

    def goes_out(self, peer: str) -> None:
        """The answer is on its way to a client, which holds its memory until it has read it.

        Raises:
            Overloaded: As many as there are places wait to be read.
        """
        waiting = self._capacity.leaving
        if len(waiting) >= self._capacity.places:
            raise Overloaded(f"{len(waiting)} answers wait to be read by their clients; try again later.")
        self.peer = peer
        waiting[self] = 0

    def leave(self) -> None:
        """Give everything back."""
        self._forget()
        self._give_place()
        self._capacity.leaving.pop(self, None)

    def _give_place(self) -> None:
        if self._at_work:
            self._capacity.at_work -= 1
            self._at_work = False

    def refused(self) -> Overloaded:
        """Return why a body was thrown away."""
        return no_memory(self._capacity.memory)

    def _forget(self) -> None:
        self._capacity.arriving.pop(self, None)
        self._capacity.held -= self.size
        self.size, self._task = 0, None
        self.parts.clear()


def no_memory(limit: int) -> Overloaded:
    """More requests arrive than there is memory for."""
    return Overloaded(f"the requests that are here take {limit} bytes together, which is the limit; try again later.")

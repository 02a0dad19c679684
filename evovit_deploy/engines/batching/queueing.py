"""The queue of a batcher: requests in order of arrival, counted in images."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from ...errors import DeadlineExceeded, EvoVitError
from .requests import Request, Run

__all__ = ["RequestQueue", "late", "settle"]


class RequestQueue:
    """What waits. Every method is called with the batcher's lock held.

    Attributes:
        images: Images that wait.
    """

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self.images = 0

    def __bool__(self) -> bool:
        return bool(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests))

    @property
    def first(self) -> Request:
        """The request that has waited longest."""
        return self._requests[0]

    def put(self, request: Request) -> None:
        """Add to the end."""
        self._enter(request)
        self._requests.append(request)

    def put_back(self, requests: Iterable[Request]) -> None:
        """Add to the front, each to run alone, in their order."""
        for request in reversed(list(requests)):
            request.alone = True
            self._enter(request)
            self._requests.appendleft(request)

    def remove(self, request: Request) -> None:
        """Take out of the queue, if it is in it."""
        if request.waiting:
            self._requests.remove(request)
            self._leave(request)

    def clear(self) -> list[Request]:
        """Take everything out."""
        waiting = list(self._requests)
        for request in waiting:
            self.remove(request)
        return waiting

    def expired(self, now: float) -> list[Request]:
        """Take out what has reached its deadline."""
        late = [request for request in self._requests if request.deadline <= now]
        for request in late:
            self.remove(request)
        return late

    def next_deadline(self) -> float:
        """Return the earliest deadline, or infinity."""
        return min((request.deadline for request in self._requests), default=math.inf)

    def ready_in(self, max_batch: int, delay: float, now: float) -> float | None:
        """Return the seconds until the next batch should start, 0 or less for now, or None when nothing waits.

        Args:
            max_batch: Images of a full batch, which starts at once.
            delay: Seconds that a request may wait for a fuller one.
            now: On the batcher's clock.
        """
        if not self:
            return None
        if self.first.alone or self.images >= max_batch:
            return 0.0
        return self.first.arrived + delay - now

    def fill(self, run: Run, max_batch: int) -> None:
        """Move requests into a run in order of arrival, while they fit; not what was cancelled, and apart what is unsuited."""
        while self._requests and run.fits(self._requests[0], max_batch):
            request = self._requests.popleft()
            self._leave(request)
            if not request.suits(run.engine):
                run.unsuited += settle([request])
            elif request.begin():
                run.add(request)

    def _enter(self, request: Request) -> None:
        request.waiting = True
        self.images += request.count

    def _leave(self, request: Request) -> None:
        request.waiting = False
        self.images -= request.count


def settle(requests: Iterable[Request]) -> list[Request]:
    """With the batcher's lock held: those of ``requests`` that the caller now has to answer, once it has let go of it."""
    mine = [request for request in requests if not request.settled]
    for request in mine:
        request.settled = True
    return mine


def late(queue: RequestQueue, running: Iterable[Run], now: float) -> list[tuple[Request, EvoVitError]]:
    """With the batcher's lock held: requests at their deadline, waiting or running, with the error to answer them with."""
    found = queue.expired(now)
    found += [request for run in running for request in run.requests if request.deadline <= now]
    return [
        (request, DeadlineExceeded(f"not answered within {request.deadline - request.arrived:g} s."))
        for request in settle(found)
    ]

"""A request in the batcher, and a run of several of them through the engine."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, EvoVitError
from ...recipes import Transform
from .runner import Runner

__all__ = ["Array", "BatchRecord", "Outputs", "Request", "Run", "TransformChanged"]

Array = NDArray[Any]
Outputs = dict[str, Array]


class TransformChanged(EvoVitError):
    """Images wait that were prepared for an engine with another transform than the one now in its place: prepare them again."""


class Request(Future[Outputs]):
    """The future of one request, with what the batcher knows about it.

    Attributes:
        images: [count, ...], dropped once the request is settled.
        count: Images in it.
        arrived: When it was accepted, on the batcher's clock.
        deadline: When it is given up, on the same clock; infinity for never.
        waiting: It is in the queue.
        alone: It shared a batch that failed or hung, and is tried again by itself.
        settled: Its answer has been decided; whoever sets this under the batcher's lock is the one to give the answer.
        waited: Seconds in the queue.
        prepared: Transform that its images went through; None fits every engine.
    """

    def __init__(self, images: Array, arrived: float, timeout: float | None, prepared: Transform | None = None) -> None:
        super().__init__()
        self.images: Array | None = images
        self.count = len(images)
        self.prepared = prepared
        self.arrived = arrived
        self.deadline = math.inf if timeout is None else arrived + timeout
        self.waiting = True
        self.alone = False
        self.settled = False
        self.waited = 0.0

    def suits(self, engine: Runner) -> bool:
        """Return whether its images are prepared as this engine needs them."""
        return self.prepared is None or self.prepared == (engine.spec.transform or Transform())

    def begin(self) -> bool:
        """Mark it as running; False if the caller has cancelled it. A request that is tried again is running already."""
        return self.running() or self.set_running_or_notify_cancel()

    def answer(self, outcome: Outputs | BaseException) -> None:
        """Give the answer to whoever waits for it. The caller has set ``settled``."""
        self.images = None
        if not self.begin():
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def left_behind(self, error: BaseException) -> None:
        """End it in a forked child, where nobody works on it. Its callbacks are the parent's and do not run here."""
        self.settled, self.waiting, self.images = True, False, None
        self._condition = threading.Condition()  # another thread of the parent may have held it
        self._done_callbacks: list[Any] = []
        if not self.done():
            self.set_exception(error)


@dataclass(eq=False)
class Run:
    """One batch on its way through the engine.

    Attributes:
        engine: The engine it was given to; a swap does not change it.
        started: When, on the batcher's clock.
        gives_up: When it counts as hung; infinity for never.
        requests: Whose images it holds, in order.
        count: Images in it.
        abandoned: It took too long, and nobody waits for it any more.
        unsuited: Requests that were taken out of the queue since this engine needs other images; settled, not answered yet.
    """

    engine: Runner
    started: float
    gives_up: float
    requests: list[Request] = field(default_factory=list)
    count: int = 0
    abandoned: bool = False
    unsuited: list[Request] = field(default_factory=list)
    _images: list[Array] = field(default_factory=list)

    def fits(self, request: Request, max_batch: int) -> bool:
        """Return whether a request may join; the first one always may."""
        if not self.requests:
            return True
        return not (request.alone or self.requests[0].alone) and self.count + request.count <= max_batch

    def add(self, request: Request) -> None:
        """Take a request in. Its images are kept here, since a request that is settled early lets go of them."""
        assert request.images is not None
        request.waited = self.started - request.arrived
        self.requests.append(request)
        self._images.append(request.images)
        self.count += request.count

    def release(self) -> None:
        """Let go of requests and images, once it has ended."""
        self.requests.clear()
        self._images.clear()

    def next_event(self) -> float:
        """Return when something is due next: a deadline of a request without an answer, or the end of the run's own time."""
        return min(self.gives_up, *(request.deadline for request in self.requests if not request.settled), math.inf)

    def execute(self, max_batch: int, *, fixed: bool = False) -> list[Outputs]:
        """Run the engine, at most ``max_batch`` images at a time, and cut the result into each request's own rows.

        With ``fixed``, exactly ``max_batch`` at a time: what is missing repeats the first image.

        Raises:
            EngineError: The engine gave a different number of rows than there were images.
            Exception: Whatever the engine raises.
        """
        images = self._images[0] if len(self._images) == 1 else np.concatenate(self._images)
        size = max_batch if fixed else 1
        if len(images) <= max_batch:
            outputs = self._call(images, size)
        else:
            pieces = [self._call(images[i : i + max_batch], size) for i in range(0, len(images), max_batch)]
            outputs = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        if len(self.requests) == 1:
            return [outputs]
        results, start = [], 0
        for request in self.requests:
            rows = slice(start, start := start + request.count)
            # Copies, so that nobody holds, or writes to, the rows of another.
            results.append({name: value[rows].copy() for name, value in outputs.items()})
        return results

    def _call(self, images: Array, size: int) -> Outputs:
        """The engine's answer to these images, run as a batch of at least ``size``."""
        count, missing = len(images), max(0, size - len(images))
        if missing:
            images = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
        outputs = self.engine.run_checked(images)  # Batcher.submit checked each of them
        for name, value in outputs.items():
            if len(value) != len(images):
                raise EngineError(f"the engine gave {len(value)} rows of {name} for {len(images)} images.")
        return {name: value[:count] for name, value in outputs.items()} if missing else outputs


@dataclass(frozen=True)
class BatchRecord:
    """What a batch was, for metrics.

    Attributes:
        images: Images in it.
        waited: Seconds that each of its requests was in the queue.
        seconds: Seconds in the engine.
        failed: The engine raised or hung.
    """

    images: int
    waited: tuple[float, ...]
    seconds: float
    failed: bool

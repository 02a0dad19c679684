"""The micro-batcher: requests from any thread or event loop go through an engine in batches, each on its own terms.

A worker takes whatever waits in the queue, up to ``max_batch`` images, as soon as it is free: while one batch runs the next
one gathers, so batches grow with the load and a single caller never waits for company. ``max_delay_ms`` lets a worker wait
for a fuller batch. One more thread watches deadlines and runs that hang.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from ...errors import InputError
from ...recipes import Transform
from .clock import MAX_DELAY_MS, Clock, seconds_of
from .requests import Array, BatchRecord, Outputs, Request
from .runner import Runner
from .workers import Workers

__all__ = ["Batcher"]

DEFAULT_MAX_BATCH = 32


class Batcher:
    """Runs many small requests through one engine in batches. Safe from any thread and any event loop.

    A batch that raises or hangs is tried again request by request, so that an error reaches the request that causes it and
    no other. Which requests share a batch changes neither the order of rows nor whose they are. Their last bits are those of
    the engine at that batch size: engines choose other kernels for other sizes. ``fixed_batch`` makes them always the same.

    A forked child may use it: there it starts again, with its own threads, if the engine can (:meth:`Engine.revive`).

    Args:
        engine: Any engine. It stays the caller's: :meth:`close` does not close it.
        max_batch: Images in one run; None is what the engine takes at most, or 32. Larger requests run in pieces.
        fixed_batch: Fill every run up to ``max_batch`` by repeating an image, at the price of the largest run each time.
        max_delay_ms: How long a request may wait for others to fill its batch, milliseconds.
        max_queue: Images that may wait; beyond that, requests are refused with Overloaded.
        workers: Batches that may run at once. One suits a CPU; on a GPU two overlap copies with compute.
        run_timeout: Seconds after which a run counts as hung; None waits for ever. Its thread cannot be stopped, so it is left
            behind and replaced; when four hang, the batcher refuses everything.
        on_batch: Called with a :class:`BatchRecord` after each run, in the worker's thread; keep it short.
        clock: For tests.

    Raises:
        InputError: A limit that is not positive, or a ``max_batch`` above what the engine takes.
    """

    def __init__(
        self, engine: Runner, *, max_batch: int | None = None, fixed_batch: bool = False, max_delay_ms: float = 0.0,
        max_queue: int = 256, workers: int = 1, run_timeout: float | None = 60.0,
        on_batch: Callable[[BatchRecord], None] | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        limit = engine.spec.batch or engine.spec.max_batch
        self.max_batch = max_batch if max_batch is not None else limit or DEFAULT_MAX_BATCH
        for name, value in (("max_batch", self.max_batch), ("max_queue", max_queue), ("workers", workers)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value}; give a whole number from 1.")
        if limit is not None and self.max_batch > limit:
            raise InputError(f"max_batch is {self.max_batch}, and {engine.spec.name} takes {limit} at most.")
        if not 0 <= max_delay_ms <= MAX_DELAY_MS:
            raise InputError(f"max_delay_ms is {max_delay_ms}; give 0 to {MAX_DELAY_MS:,} milliseconds.")
        self.max_queue, self.max_delay_ms, self.workers = max_queue, max_delay_ms, workers
        self._clock = clock or Clock()
        self._workers = Workers(
            engine,
            max_batch=self.max_batch,
            fixed=fixed_batch,
            delay=max_delay_ms / 1000,
            max_queue=max_queue,
            workers=workers,
            run_timeout=math.inf if run_timeout is None else seconds_of(run_timeout, "run_timeout"),
            on_batch=on_batch,
            clock=self._clock,
        )

    @property
    def engine(self) -> Runner:
        """The engine that new batches run on."""
        return self._workers.engine

    @property
    def queued(self) -> int:
        """Images that wait now."""
        return self._workers.queue.images

    @property
    def healthy(self) -> bool:
        """Whether it takes requests: it is not closed, its threads live, and a worker is left that does not hang."""
        return self._workers.healthy

    def submit(
        self, images: Array, *, timeout: float | None = None, prepared: Transform | None = None
    ) -> Future[Outputs]:
        """Queue one request.

        Args:
            images: What the engine takes, [n, 3, S, S] float32 or [n, S, S, 3] uint8, n >= 1. Leave the array alone until the
                answer is there: it is not copied.
            timeout: Seconds until the request is given up with DeadlineExceeded, wherever it is by then.
            prepared: Transform that the images went through. When :meth:`swap` brings an engine with another one before they
                ran, the request ends with TransformChanged, to be prepared again. None runs them on any engine.

        Returns:
            Future of output name -> array with n rows. ``cancel()`` takes a request that still waits out of the queue.

        Raises:
            InputError: A shape or dtype that the engine does not take, or more images than the queue holds.
            Overloaded: The queue is full, or the batcher is closed.
            EngineError: So many runs hang that no worker is left, or one of the batcher's threads died.
        """
        if not isinstance(images, np.ndarray):
            raise InputError(f"images are {type(images).__name__}; give a numpy array.")
        self.engine.check(images)
        if timeout is not None:
            timeout = seconds_of(timeout, "timeout")
        if len(images) > self.max_queue:
            raise InputError(f"{len(images)} images in one request; the queue holds {self.max_queue}. Send fewer.")
        request = Request(images, self._clock.now(), timeout, prepared)
        self._workers.accept(request)
        return request

    async def asubmit(
        self, images: Array, *, timeout: float | None = None, prepared: Transform | None = None
    ) -> Outputs:
        """:meth:`submit` for asyncio; cancelling the task cancels a request that still waits."""
        return await asyncio.wrap_future(self.submit(images, timeout=timeout, prepared=prepared))

    def swap(self, engine: Runner) -> Runner:
        """Put a new engine in the place of the old one, without dropping a request.

        The new one first runs one image; an error leaves the old one in place. Batches under way end on the old one.

        Returns:
            The old engine, which no batch uses any more: close it. (A run that was given up as hung may still be in it.)

        Raises:
            InputError: The new engine takes other images or gives other outputs, so queued requests would not fit.
        """
        old, new = self.engine.spec, engine.spec
        for name in ("image_shape", "input", "num_classes", "outputs"):
            a, b = getattr(old, name), getattr(new, name)
            if a != b:
                raise InputError(f"the new engine's {name} is {b}, the old one's {a}. Use a separate batcher for it.")
        engine(np.zeros((1, *new.image_shape), new.input))
        return self._workers.replace(engine)

    def close(self, *, drain: bool = True, timeout: float | None = None) -> int:
        """Take no more requests, and wait until those accepted are answered.

        Args:
            drain: False refuses what still waits in the queue; batches under way end in any case.
            timeout: Seconds to wait at most; what is not answered by then fails with Overloaded.

        Returns:
            How many accepted requests were not answered.
        """
        return self._workers.close(
            drain=drain, timeout=None if timeout is None else seconds_of(timeout, "timeout", least=0)
        )

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

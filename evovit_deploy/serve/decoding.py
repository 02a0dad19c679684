"""Threads and memory for decoding images in a service: neither grows with what clients send, nor outlives the service."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

__all__ = ["DaemonThreads", "PixelBudget"]

T = TypeVar("T")


class _Result(Future[T]):
    """Knows whether anybody still waits for it: a client that was told 504 does not."""

    abandoned = False

    def cancel(self) -> bool:
        """Cancel it; false if it runs already."""
        self.abandoned = True
        return super().cancel()


Job = tuple[_Result[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """Threads that do not keep the process alive: it ends while a decoder is still at work.

    The threads of ``ThreadPoolExecutor`` are waited for when Python ends, whatever they are doing.

    Args:
        count: Threads.
        name: Of the threads, before their number.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._count, self._lock = count, threading.Lock()
        self._ended: Exception | None = None
        self._running: set[_Result[Any]] = set()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function when a thread is free.

        Raises:
            Exception: What :meth:`end` was given.
        """
        future: _Result[T] = _Result()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take no more, as :meth:`end`; what is running is never waited for."""
        self.end(RuntimeError("cannot schedule new futures after shutdown"))

    def end(self, error: Exception) -> int:
        """Take no more: what waits, what runs and what is asked for later ends with ``error``; returns how many it ended.

        A thread at work goes on, and nobody hears what comes of it.
        """
        with self._lock:
            if self._ended is not None:
                return 0
            self._ended, running = error, self._running
            self._running = set()
            ended = 0
            with contextlib.suppress(queue.Empty):
                while True:
                    ended += (job := self._jobs.get_nowait()) is not None and _fail(job[0], error)
            for _ in range(self._count):
                self._jobs.put(None)
        for future in running:
            future.set_exception(error)
        return ended + sum(not future.abandoned for future in running)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            with self._lock:
                if self._ended is not None:
                    _fail(future, self._ended)
                    continue
                if not future.set_running_or_notify_cancel():
                    continue
                self._running.add(future)
            result, failure = None, None
            try:
                result = call()
            except BaseException as error:  # the caller's, as in ThreadPoolExecutor
                failure = error
            if self._is_awaited(future):
                future.set_result(result) if failure is None else future.set_exception(failure)
            del job, future, call, result, failure

    def _is_awaited(self, future: _Result[Any]) -> bool:
        """Whether a job that was run still has to say what came of it."""
        with self._lock:
            if future not in self._running:
                return False
            self._running.remove(future)
            return True


def _fail(future: Future[Any], error: Exception) -> bool:
    """End what has not begun; false if nobody waits for it."""
    if not future.set_running_or_notify_cancel():
        return False
    future.set_exception(error)
    return True


class PixelBudget:
    """How many pixels are decoded at once: as many as the largest allowed image has, whatever the number of threads.

    What does not fit waits without a thread, and the smallest image goes first: many large ones do not hold up the others.

    Args:
        most: Pixels at once; an image beyond that is decoded alone.
    """

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._ended: Exception | None = None
        self._waiting: list[tuple[int, int, Future[None]]] = []  # a heap: pixels, number, granted

    def take(self, count: int) -> bool:
        """Take pixels for one image if they are free; :meth:`give` gives them back."""
        with self._lock:
            return self._take(count)

    async def wait(self, count: int) -> None:
        """Take pixels for one image as soon as they are free."""
        granted: Future[None] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            if self._take(count):
                return
            heapq.heappush(self._waiting, (count, next(self._numbers), granted))
        try:
            await asyncio.wrap_future(granted)
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:  # it came at the same moment
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give the pixels of one image back, to those who wait for some."""
        with self._lock:
            self._used -= count
            while self._waiting:
                wanted, _, granted = self._waiting[0]
                if not self._take(wanted):
                    break
                heapq.heappop(self._waiting)
                if granted.set_running_or_notify_cancel():
                    granted.set_result(None)
                else:  # nobody waits for it any more
                    self._used -= wanted

    def end(self, error: Exception) -> int:
        """End everything that waits, or will, with ``error``; returns how many waited."""
        with self._lock:
            self._ended, waiting, self._waiting = error, self._waiting, []
        return sum(_fail(granted, error) for _, _, granted in waiting)

    def _take(self, count: int) -> bool:
        free = not self._used or self._used + count <= self._most
        self._used += count if free else 0
        return free

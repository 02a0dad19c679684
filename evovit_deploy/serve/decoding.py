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

__all__ = ["DaemonThreads", "Pixels"]

T = TypeVar("T")
Job = tuple["Future[Any]", Callable[[], Any]]


class DaemonThreads(Executor):
    """Threads that do not keep the process alive: it ends while a decoder is still at work.

    The threads of ``ThreadPoolExecutor`` are waited for when Python ends, whatever they are doing.

    Args:
        count: Threads.
        name: Of the threads, before their number.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._count, self._closed, self._lock = count, False, threading.Lock()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}_{number}", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function when a thread is free.

        Raises:
            RuntimeError: After :meth:`shutdown`.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Take no more; never waits for what is running."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if cancel_futures:
                with contextlib.suppress(queue.Empty):
                    while True:
                        job = self._jobs.get_nowait()
                        if job is not None:
                            job[0].cancel()
            for _ in range(self._count):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # the caller's, as in ThreadPoolExecutor
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, call


class Pixels:
    """How many pixels are decoded at once: as many as the largest allowed image has, whatever the number of threads.

    What does not fit waits without a thread, and the smallest image goes first: many large ones do not hold up the others.

    Args:
        most: Pixels at once; an image beyond that is decoded alone.
    """

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, Future[None]]] = []  # a heap: pixels, number, granted

    def take(self, count: int) -> bool:
        """Take pixels for one image if they are free; :meth:`give` gives them back."""
        with self._lock:
            return self._take(count)

    async def wait(self, count: int) -> None:
        """Take pixels for one image as soon as they are free."""
        granted: Future[None] = Future()
        with self._lock:
            if self._take(count):
                return
            heapq.heappush(self._waiting, (count, next(self._numbers), granted))
        try:
            await asyncio.wrap_future(granted)
        except asyncio.CancelledError:
            if not granted.cancelled():  # it came at the same moment
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

    def _take(self, count: int) -> bool:
        free = not self._used or self._used + count <= self._most
        self._used += count if free else 0
        return free

"""Threads and memory for decoding images in a service: neither grows with what clients send, nor outlives the service."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
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
    """How many pixels are decoded at once: as many as the largest allowed image has, whatever the number of threads."""

    def __init__(self) -> None:
        self._used = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int, most: int) -> Iterator[None]:
        """Wait until ``count`` more pixels do not exceed ``most``, or nothing else is decoded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= most)
            self._used += count
        try:
            yield
        finally:
            with self._changed:
                self._used -= count
                self._changed.notify_all()

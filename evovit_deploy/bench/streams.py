"""Throughput with several callers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .report import Concurrent
from .turns import Clock

__all__ = ["concurrent"]

Call = Callable[[], Any]


def concurrent(
    make: Callable[[], Call],
    subject: str,
    batch: int,
    streams: int,
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
    wait: Callable[[float], None] = time.sleep,
) -> Concurrent:
    """Let ``streams`` threads call a model, each again as soon as its last call is done, for ``seconds``.

    Args:
        make: Makes one caller's call; on a GPU each caller has its own stream and buffers.
        subject, batch: For the result.
        streams: Callers.
        seconds: How long.
        clock, wait: Seconds; replaced together in tests.

    Raises:
        EngineError: A call failed; the others are stopped first.
    """
    calls = [make() for _ in range(streams)]
    for call in calls:
        call()  # a new context records graphs and allocates on its first call
    counts, failures = [0] * streams, list[BaseException]()
    stop, ready = threading.Event(), threading.Barrier(streams + 1)

    def work(index: int) -> None:
        ready.wait()
        try:
            while not stop.is_set():
                calls[index]()
                counts[index] += 1
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(streams)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = clock()
    try:
        wait(seconds)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    elapsed = clock() - start
    if failures:
        raise failures[0]
    done = sum(counts)
    return Concurrent(subject, batch, streams, done, elapsed, batch * done / elapsed)

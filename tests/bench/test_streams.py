"""Several callers at once; no time is asserted."""

from __future__ import annotations

import itertools
import threading

import pytest

from evovit_deploy.bench.streams import concurrent
from evovit_deploy.errors import EngineError


def test_callers_run_at_the_same_time() -> None:
    """Every call waits until all four callers are in one, which would hang if they took turns."""
    together = threading.Barrier(4)
    made = itertools.count()
    enough = threading.Event()
    calls: list[int] = []

    def make():  # type: ignore[no-untyped-def]
        name = next(made)
        warm = iter([True])

        def call() -> None:
            if next(warm, False):
                return  # callers are warmed up one by one
            try:
                together.wait(timeout=10)
            except threading.BrokenBarrierError:
                return  # the others have stopped
            calls.append(name)
            if len(calls) >= 40:
                enough.set()

        return call

    def wait(seconds: float) -> None:
        assert enough.wait(timeout=30)
        together.abort()

    ticks = iter([10.0, 12.0])
    found = concurrent(make, "a", 8, 4, 5.0, clock=lambda: next(ticks), wait=wait)
    assert next(made) == 4
    assert set(calls) == {0, 1, 2, 3}
    assert found.seconds == 2
    assert found.images_per_second == 8 * found.calls / 2


def test_a_failure_stops_everybody() -> None:
    failing = iter([False])

    def call() -> None:
        if next(failing, True):
            raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        concurrent(lambda: call, "a", 1, 1, 0.01)

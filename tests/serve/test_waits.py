"""Time limits of any size, and threads that die: nobody is left waiting, and health says so."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from evovit_deploy.engines.batching.clock import Clock
from evovit_deploy.engines.batching.requests import BatchRecord
from evovit_deploy.errors import DeadlineExceeded, EngineError, InputError
from evovit_deploy.serve import Batcher

from .engines import PATIENCE, NumberEngine, images, numbers

LONG = [3601, 1e10, 1e300, math.inf, 10**400]


@pytest.mark.parametrize("seconds", LONG)
def test_a_limit_beyond_what_the_platform_can_wait_is_as_good_as_none(seconds: float) -> None:
    engine = NumberEngine()
    batcher = Batcher(engine, run_timeout=seconds)
    engine.hold()
    patient = batcher.submit(images(1), timeout=seconds)
    engine.wait_entered()
    with pytest.raises(DeadlineExceeded):  # the watching thread lives, and wakes for what is due before
        batcher.submit(images(2), timeout=0.05).result(PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, timeout=seconds)
        engine.release()
        assert closing.result(PATIENCE) == 0
    assert numbers(patient.result(PATIENCE)) == [1]


@pytest.mark.parametrize("seconds", [*LONG, None, 0.5, 0, -3.0])
def test_no_wait_is_longer_than_an_hour(seconds: float | None) -> None:
    class Recorder(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            return True

    waited: list[float | None] = []
    Clock().wait(Recorder(), seconds)
    assert waited == [3600 if seconds is None else min(max(seconds, 0), 3600)]


NO_TIME = [math.nan, -1, 0, -math.inf, -(10**400), "5", b"1", [1], 1j]


@pytest.mark.parametrize("seconds", NO_TIME)
def test_a_limit_that_is_none_is_refused_before_anything_waits(seconds: Any) -> None:
    with Batcher(NumberEngine()) as batcher:
        with pytest.raises(InputError, match=r"timeout is .*seconds"):
            batcher.submit(images(1), timeout=seconds)
        if seconds != 0:
            with pytest.raises(InputError, match=r"timeout is .*seconds"):
                batcher.close(timeout=seconds)
        assert numbers(batcher.submit(images(1)).result(PATIENCE)) == [1]
    with pytest.raises(InputError, match=r"run_timeout is .*seconds"):
        Batcher(NumberEngine(), run_timeout=seconds)


@pytest.mark.parametrize("delay", [-1, 60_001, 1e14, math.inf, math.nan])
def test_a_delay_that_nobody_means_is_refused(delay: float) -> None:
    with pytest.raises(InputError, match="max_delay_ms is"):
        Batcher(NumberEngine(), max_delay_ms=delay)


class FailingClock(Clock):
    """Breaks the thread that next waits on it, once told to."""

    broken = ""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if self.broken and threading.current_thread().name == self.broken:
            raise OverflowError("no such time")
        super().wait(condition, 0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("thread", ["evovit-batch", "evovit-watch"])
def test_a_thread_that_dies_makes_the_batcher_unhealthy_and_nobody_waits(thread: str) -> None:
    clock, engine = FailingClock(), NumberEngine()
    batcher = Batcher(engine, clock=clock, workers=2, max_batch=1, max_queue=8)
    engine.hold()
    accepted = [batcher.submit(images(i)) for i in range(2 if thread == "evovit-watch" else 1)]
    engine.wait_entered()
    if thread == "evovit-watch":
        accepted += [batcher.submit(images(7)), batcher.submit(images(8))]
    clock.broken = thread
    for future in accepted:
        with pytest.raises(EngineError, match=r"thread of the batcher died .*no such time"):
            future.result(PATIENCE)
    assert not batcher.healthy
    with pytest.raises(EngineError, match="restart the service"):
        batcher.submit(images(1))
    engine.release()
    assert batcher.close() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_observer_that_ends_its_thread_makes_the_batcher_unhealthy() -> None:
    threads = []

    def leave(record: BatchRecord) -> None:
        threads.append(threading.current_thread())
        raise SystemExit

    batcher = Batcher(NumberEngine(), on_batch=leave)
    assert numbers(batcher.submit(images(1)).result(PATIENCE)) == [1]
    while batcher.healthy:
        time.sleep(0.001)
    threads[0].join()  # what pytest thinks of its end is this test's to ignore
    with pytest.raises(EngineError, match="SystemExit"):
        batcher.submit(images(1))
    assert batcher.close() == 0

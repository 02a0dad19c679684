"""A build's progress as one number, and its cancellation, without a build."""

from __future__ import annotations

import threading
import time

import pytest

from evovit_deploy.building.monitor import Phases, run_cancellable


@pytest.mark.parametrize("more", [0, 2])
def test_an_interrupt_while_waiting_stops_the_work_and_goes_on(monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    cancel, stopped, running = threading.Event(), threading.Event(), threading.Event()
    waiting = threading.main_thread()
    interrupts = iter(range(1 + more))
    real_wait = threading.Event.wait

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        started = running.is_set()  # Thread.start() waits too
        if started and threading.current_thread() is waiting and next(interrupts, None) is not None:
            raise KeyboardInterrupt
        return real_wait(self, timeout)

    def work() -> None:
        running.set()
        real_wait(cancel)
        time.sleep(0.05)  # as TensorRT does before it looks at what its monitor said
        stopped.set()

    monkeypatch.setattr(threading.Event, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, cancel)
    assert stopped.is_set()


def test_phases_nest_and_never_fall() -> None:
    phases = Phases()
    seen = []
    phases.start("build", None, 4)
    phases.step("build", 0)
    seen.append(phases.fraction)
    phases.start("inner", "build", 2)
    phases.step("inner", 0)
    seen.append(phases.fraction)
    phases.start("deep", "inner", 5)
    phases.step("deep", 3)
    seen.append(phases.fraction)
    phases.finish("deep")
    phases.finish("inner")
    seen.append(phases.fraction)
    phases.step("build", 1)
    seen.append(phases.fraction)
    phases.finish("build")
    seen.append(phases.fraction)
    assert seen == pytest.approx([0.25, 0.375, 0.475, 0.475, 0.5, 1.0])
    phases.step("unknown", 3)
    assert phases.fraction == 1.0

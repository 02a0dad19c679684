"""A build's progress as one number, and its cancellation, from TensorRT's nested phases."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Phases", "Progress", "progress_monitor", "run_cancellable"]

Progress = Callable[[str, float], None]


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Nested phases, each with a known number of steps, as one fraction that never falls."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._root: str | None = None
        self.fraction = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase; the first one is the whole build."""
        self._open[name] = _Phase(parent, max(steps, 1))
        self._root = self._root or name

    def step(self, name: str, index: int) -> None:
        """Step ``index`` (from 0) of a phase is done."""
        if name in self._open:
            self._open[name].done = max(self._open[name].done, index + 1)
        self._update()

    def finish(self, name: str) -> None:
        """End a phase."""
        self._open.pop(name, None)
        if name == self._root:
            self.fraction = 1.0
        self._update()

    def _update(self) -> None:
        if self._root in self._open:
            self.fraction = max(self.fraction, self._of(self._root))

    def _of(self, name: str) -> float:
        phase = self._open[name]
        inner = max((self._of(child) for child, p in self._open.items() if p.parent == name), default=0.0)
        return min((phase.done + min(inner, 1.0)) / phase.steps, 1.0)


def progress_monitor(trt: Any, progress: Progress | None, cancel: threading.Event) -> Any:
    """Return an ``IProgressMonitor`` that reports to ``progress`` and stops the build once ``cancel`` is set.

    Its ``failure`` is the exception that ``progress`` raised, if it did; that stops the build too, because an exception
    must not cross TensorRT's own frames.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases, self.lock = Phases(), threading.Lock()
            self.failure: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                self.phases.start(phase_name, parent_phase, num_steps)
                self.report(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            with self.lock:
                self.phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self.lock:
                self.phases.step(phase_name, step)
                self.report(phase_name)
            return not cancel.is_set()

        def report(self, phase_name: str) -> None:
            if progress is None or self.failure is not None:
                return
            try:
                progress(phase_name, self.phases.fraction)
            except BaseException as error:
                self.failure = error
                cancel.set()

    return Monitor()


def run_cancellable(work: Callable[[], Any], cancel: threading.Event) -> Any:
    """Run ``work`` in a separate thread and wait, so that Ctrl-C reaches this thread and not a callback of TensorRT.

    On KeyboardInterrupt ``cancel`` is set, the work is waited for, and the interrupt goes on. Further ones change nothing:
    a process that ends while TensorRT is compiling crashes.
    """
    result: list[Any] = []
    failure: list[BaseException] = []
    # Not Thread.join: interrupted, it takes a thread that is running for one that has ended (Python 3.11 and before).
    begun, done = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="evovit-build").start()
        while not done.wait(0.1):
            pass
    except BaseException:
        cancel.set()
        with contextlib.suppress(KeyboardInterrupt):
            begun.wait(1)  # start() itself may have been interrupted, on either side of the start
        while begun.is_set() and not done.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                done.wait(0.1)
        raise
    if failure:
        raise failure[0]
    return result[0]

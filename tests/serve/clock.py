"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading

from evovit_deploy.engines.batching.clock import Clock


class ManualClock(Clock):
    """Whoever waits looks again and again, so a test moves the time by setting it; how fast the machine is decides nothing."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        condition.wait(0.002)

    def advance(self, seconds: float) -> None:
        self.time += seconds

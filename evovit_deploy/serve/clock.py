"""Time as the batcher sees it, so that tests can bring a clock of their own."""

from __future__ import annotations

import threading
import time

__all__ = ["Clock"]


class Clock:
    """The monotonic clock of this machine."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition that the caller holds, for ``seconds`` at most; None waits until it is notified."""
        condition.wait(seconds)

"""Time as the batcher sees it, so that tests can bring their own clock."""

from __future__ import annotations

import math
import threading
import time
from numbers import Real

from ...errors import InputError

__all__ = ["LONGEST", "MAX_DELAY_MS", "Clock", "seconds_of"]

# Seconds in one wait; whoever waits looks again then. Platforms raise OverflowError beyond their own limit.
LONGEST = 3600.0
MAX_DELAY_MS = 60_000  # nobody waits longer than a minute for company


def seconds_of(value: object, name: str, *, least: float | None = None) -> float:
    """Check a time limit that a caller gave: a number of seconds; infinity is no limit.

    Args:
        value: As given.
        name: Of the argument, for the message.
        least: The smallest that is valid; None is anything above 0.

    Raises:
        InputError: Not a number, NaN, or too small.
    """
    seconds = math.nan
    if isinstance(value, Real):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf if str(value)[0] != "-" else -math.inf
    if not (seconds > 0 if least is None else seconds >= least):
        valid = "above 0" if least is None else f"from {least:g}"
        raise InputError(f"{name} is {value!r}; give a number of seconds {valid}, or None for no limit.")
    return seconds


class Clock:
    """The monotonic clock of this machine."""

    def now(self) -> float:
        """Return seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition that the caller holds: ``seconds``, an hour, or until notified; the caller looks."""
        condition.wait(LONGEST if seconds is None else min(max(seconds, 0.0), LONGEST))

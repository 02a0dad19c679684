"""Models take turns, call by call on one clock, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .settings import Settings

__all__ = ["Clock", "Progress", "Runs", "Turns", "measure", "warm_up"]

Clock = Callable[[], float]
Runs = Mapping[str, Callable[[], Any]]
# Called between measured calls with the share done (0 to 1) and what is going on.
Progress = Callable[[float, str], None]

# A turn is as many calls as fit: long enough that caches belong to the model whose turn it is, short enough for hundreds.
TURN_SECONDS = 0.05
MIN_TURNS = 40
MAX_TURN_CALLS = 64
MIN_WARMUP_CALLS = 3


@dataclass
class Turns:
    """Latencies of one batch size: model -> R turns of k calls, seconds; every model has the same R and k."""

    seconds: dict[str, list[list[float]]]
    warmup_calls: int = 0

    @property
    def rounds(self) -> int:
        """Rounds that every model finished."""
        return min(len(turns) for turns in self.seconds.values())

    def of(self, label: str) -> NDArray[Any]:
        """Return [R, k] of one model, rounds that every model finished."""
        return np.array(self.seconds[label][: self.rounds])


def warm_up(runs: Runs, settings: Settings, turns: Turns, clock: Clock, tell: Progress) -> int:
    """Run every model unmeasured, in turn, until all had their warm-up; returns the calls that make a turn."""
    seen: dict[str, list[float]] = {label: [] for label in runs}
    spent = dict.fromkeys(runs, 0.0)
    while not _warm(turns.warmup_calls, spent, settings):
        for label, run in runs.items():
            start = clock()
            run()
            seconds = clock() - start
            seen[label].append(seconds)
            spent[label] += seconds
        turns.warmup_calls += 1
        tell(0.0, "warming up")
    # The first calls allocate and choose kernels, so the median counts.
    slowest = max(float(np.median(latencies)) for latencies in seen.values())
    turn = min(TURN_SECONDS, settings.min_seconds / MIN_TURNS)
    return max(1, min(MAX_TURN_CALLS, int(turn / slowest) if slowest > 0 else 1))


def _warm(calls: int, spent: dict[str, float], settings: Settings) -> bool:
    if calls >= settings.warmup_calls and min(spent.values()) >= settings.warmup_seconds:
        return True
    return calls >= MIN_WARMUP_CALLS and max(spent.values()) >= settings.warmup_limit


def measure(runs: Runs, calls: int, settings: Settings, turns: Turns, clock: Clock, tell: Progress) -> None:
    """Let the models take turns of ``calls`` calls until all have enough; adds to ``turns``, also when interrupted.

    Each round goes the other way round than the last (A B, B A, A B, ...): were one model always first, a drift of the machine
    would favour it in every pair.
    """
    spent = dict.fromkeys(runs, 0.0)
    count, order = 0, list(runs.items())
    while True:
        for label, run in order:
            turn = []
            for _ in range(calls):
                start = clock()
                run()
                turn.append(clock() - start)
            turns.seconds[label].append(turn)
            spent[label] += sum(turn)
        count += calls
        order.reverse()
        by_time = min(spent.values()) / settings.min_seconds if settings.min_seconds else 1.0
        enough = min(by_time, count / settings.min_calls)
        by_limit = max(spent.values()) / settings.max_seconds if settings.max_seconds else 1.0
        limit = min(by_limit, turns.rounds / statistics.MIN_ROUNDS)
        tell(min(1.0, max(enough, limit)), f"{count} calls of each model")
        if enough >= 1 or limit >= 1:
            return

"""Latency under load: requests come at their own times, and wait when the model is at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .report import Paced
from .settings import Settings
from .turns import Clock

__all__ = ["arrival_times", "paced"]

MIN_REQUESTS = 20


def arrival_times(rate: float, count: int, arrivals: str, seed: int) -> NDArray[np.float64]:
    """Return [count] seconds after the start at which requests are due.

    Args:
        rate: Requests a second, on average.
        count: Number of requests.
        arrivals: ``constant`` or ``poisson`` (exponential distances).
        seed: Of the distances.
    """
    if arrivals == "constant":
        return np.arange(count) / rate
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def paced(
    run: Callable[[], Any],
    subject: str,
    batch: int,
    settings: Settings,
    *,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[float], None] = lambda share: None,
) -> Paced:
    """Send requests at their due times, one after another, for ``settings.min_seconds``.

    Latency counts from the time a request was due, not from when the model got to it: otherwise a slow answer would hide the
    waiting of all that came meanwhile.

    Args:
        run: One request.
        subject, batch: For the result.
        settings: ``rate``, ``arrivals``, ``min_seconds``, ``max_seconds``, ``seed``.
        clock, sleep: Seconds; replaced together in tests.
        tell: Called between requests with the share done.
    """
    rate = settings.rate or 0.0
    count = max(MIN_REQUESTS, round(rate * settings.min_seconds))
    latencies, work, start, end = [], 0.0, clock(), 0.0
    for number, due in enumerate(arrival_times(rate, count, settings.arrivals, settings.seed)):
        tell(number / count)
        now = clock() - start
        if now > settings.max_seconds and number >= MIN_REQUESTS:
            break
        if now < due:
            sleep(due - now)
        began = clock() - start
        run()
        end = clock() - start
        work += end - began
        latencies.append(end - due)
    answered = len(latencies)
    return Paced(
        subject=subject,
        batch=batch,
        rate=rate,
        arrivals=settings.arrivals,
        achieved=answered / end,
        busy=work / end,
        overloaded=bool(rate * work / answered >= 1),
        latency=statistics.latency(np.array(latencies)),
    )

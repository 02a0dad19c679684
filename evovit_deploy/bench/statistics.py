"""Statistics of latencies: percentiles of every sample, an interval of the speedup, and whether it settled.

No sample is left out: a service feels its slow calls too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["P99_SAMPLES", "TOLERANCE", "WINDOWS", "block_length", "percentile", "speedup_interval", "stable", "windows"]

Array = NDArray[Any]
# With fewer samples the 99th percentile is decided by less than five of them.
P99_SAMPLES = 500
WINDOWS = 3
TOLERANCE = 0.05
RESAMPLES = 2000
# Too few rounds say nothing about how rounds vary.
MIN_ROUNDS = 6
CHUNK_SAMPLES = 2_000_000


def percentile(samples: Array, q: float) -> float | None:
    """The q-th percentile (0-100) of all samples, or None where there are too few: q of 99 needs 500.

    Args:
        samples: Latencies, any shape, any unit.
        q: Percentile.
    """
    if samples.size == 0 or (q >= 99 and samples.size < P99_SAMPLES):
        return None
    return float(np.percentile(samples, q))


def windows(rounds: Array, count: int = WINDOWS) -> tuple[float, ...]:
    """Median of each of ``count`` consecutive, equally long parts of a measurement; empty with fewer rounds than that.

    Args:
        rounds: [R, k]: R rounds of k samples, in the order measured.
        count: Number of windows.
    """
    if len(rounds) < count:
        return ()
    return tuple(float(np.median(part)) for part in np.array_split(rounds, count))


def stable(medians: tuple[float, ...], tolerance: float = TOLERANCE) -> bool | None:
    """Whether the slowest window is within ``tolerance`` of the fastest; None when there are no windows."""
    if not medians:
        return None
    return bool(max(medians) <= min(medians) * (1 + tolerance))


def block_length(series: Array) -> int:
    """How many consecutive rounds to resample together, so that neighbours that move together stay together.

    At least the cube root of the number of rounds (the usual rate of a moving-block bootstrap), longer when the
    autocorrelation dies out more slowly than that, at most a quarter of the rounds.

    Args:
        series: [R], one value a round.
    """
    count = len(series)
    centred = series - series.mean()
    power = float(centred @ centred)
    length = round(count ** (1 / 3))
    if power > 0:
        # Summed up to the first lag that is no longer clearly positive: the integrated autocorrelation time.
        total, noise = 0.0, 2 / count**0.5
        for lag in range(1, count // 2):
            correlation = float(centred[:-lag] @ centred[lag:]) / power
            if correlation < noise:
                break
            total += correlation
        length = max(length, round(2 * (1 + 2 * total)) if total else 1)
    return max(1, min(length, count // 4))


def speedup_interval(
    baseline: Array, subject: Array, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """How many times faster ``subject`` is than ``baseline``: ratio of the median latencies, with an interval.

    The interval is a percentile bootstrap that draws blocks of consecutive rounds (moving blocks, wrapping around at
    the end), the same rounds for both, because what disturbs the machine in a round disturbs both.

    Args:
        baseline, subject: [R, k] seconds, measured in the same R rounds.
        confidence: Of the interval.
        resamples: Bootstrap samples.
        seed: Of the resampling; equal input gives an equal interval.

    Returns:
        (ratio, low, high); low and high are None with fewer than six rounds.
    """
    count = len(baseline)
    ratio = float(np.median(baseline) / np.median(subject))
    if count < MIN_ROUNDS:
        return ratio, None, None
    length = block_length(np.log(np.median(baseline, axis=1)) - np.log(np.median(subject, axis=1)))
    generator = np.random.default_rng(seed)
    blocks = -(-count // length)
    ratios = []
    step = max(1, CHUNK_SAMPLES // max(baseline.size, subject.size))
    for first in range(0, resamples, step):
        starts = generator.integers(0, count, (min(step, resamples - first), blocks, 1))
        rows = ((starts + np.arange(length)) % count).reshape(len(starts), -1)[:, :count]
        slow, fast = (np.median(of[rows].reshape(len(rows), -1), axis=1) for of in (baseline, subject))
        ratios.append(slow / fast)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(ratios), [tail, 100 - tail])
    # The plain estimate is always inside what is reported, also when the resampled medians are lopsided.
    return ratio, min(float(low), ratio), max(float(high), ratio)

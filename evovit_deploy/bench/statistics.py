"""Statistics of latencies: percentiles of every sample, an interval of the speedup, and whether it settled.

No sample is left out: a service feels its slow calls too.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .report import Latency, Window

__all__ = [
    "P99_SAMPLES",
    "TOLERANCE",
    "WINDOWS",
    "block_length",
    "difference_interval",
    "latency",
    "percentile",
    "small_sample_factor",
    "speedup_interval",
    "stable",
    "windows_of",
]

Array = NDArray[Any]
# With fewer samples the 99th percentile is decided by less than five of them.
P99_SAMPLES = 500
WINDOWS = 3
TOLERANCE = 0.05
RESAMPLES = 2000
# Too few rounds say nothing about how rounds vary.
MIN_ROUNDS = 6


def percentile(samples: Array, q: float) -> float | None:
    """Return the q-th percentile (0-100) of all samples, or None where there are too few: q of 99 needs 500.

    Args:
        samples: Latencies, any shape, any unit.
        q: Percentile.
    """
    if samples.size == 0 or (q >= 99 and samples.size < P99_SAMPLES):
        return None
    return float(np.percentile(samples, q))


def stable(medians: tuple[float, ...], tolerance: float = TOLERANCE) -> bool | None:
    """Return whether the slowest window is within ``tolerance`` of the fastest; None when there are no windows."""
    if not medians:
        return None
    return bool(max(medians) <= min(medians) * (1 + tolerance))


def block_length(series: Array) -> int:
    """Return how many consecutive rounds to resample together, so that neighbours that move together stay together.

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


def small_sample_factor(blocks: float, confidence: float) -> float:
    """Return how much wider an interval of few independent blocks must be: Student's t over the normal quantile.

    A bootstrap of few blocks is too narrow, as it takes their spread for known. t is expanded around the normal quantile
    (Abramowitz and Stegun 26.7.5, three terms).

    Args:
        blocks: Independent parts of the sample, above 1.
        confidence: Of the interval.
    """
    z, freedom = NormalDist().inv_cdf((1 + confidence) / 2), max(blocks - 1, 1.0)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return (z + first / freedom + second / freedom**2 + third / freedom**3) / z


def speedup_interval(
    baseline: Array, subject: Array, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Return how many times faster ``subject`` is than ``baseline``: the median of the ratios of neighbouring turns.

    Each round gives one ratio, of two turns measured right after each other; each two neighbouring rounds, which went in
    opposite order, give the geometric mean of theirs. A drift of the machine changes both turns and cancels in the ratio; what
    is left of it, as one came later, cancels in the mean. The interval is a percentile bootstrap
    that draws blocks of consecutive rounds (moving blocks, wrapping around at the end), as neighbouring rounds are alike,
    widened for the number of blocks there are (:func:`small_sample_factor`).

    Args:
        baseline, subject: [R, k] seconds, measured in the same R rounds.
        confidence: Of the interval.
        resamples: Bootstrap samples.
        seed: Of the resampling; equal input gives an equal interval.

    Returns:
        (ratio, low, high); low and high are None with fewer than six rounds.
    """
    ratios = np.median(baseline, axis=1) / np.median(subject, axis=1)
    if len(ratios) > 1:
        ratios = np.sqrt(ratios[1:] * ratios[:-1])
    ratio = float(np.median(ratios))
    if len(baseline) < MIN_ROUNDS:
        return ratio, None, None
    low, high, wider = _median_interval(ratios, np.log(ratios), confidence, resamples, seed)
    low, high = ratio * (low / ratio) ** wider, ratio * (high / ratio) ** wider
    # The plain estimate is always inside what is reported, also when the resampled medians are lopsided.
    return ratio, min(low, ratio), max(high, ratio)


def difference_interval(
    baseline: Array, subject: Array, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Return how much longer ``subject`` takes than ``baseline``: the median of the differences of neighbouring turns.

    As :func:`speedup_interval`, with the difference of two turns' medians in place of their ratio.

    Args:
        baseline: [R, j] seconds.
        subject: [R, k] seconds, measured in the same R rounds.
        confidence, resamples, seed: Of the interval.

    Returns:
        (seconds, low, high); low and high are None with fewer than six rounds.
    """
    differences = np.median(subject, axis=1) - np.median(baseline, axis=1)
    if len(differences) > 1:
        differences = (differences[1:] + differences[:-1]) / 2
    found = float(np.median(differences))
    if len(baseline) < MIN_ROUNDS:
        return found, None, None
    low, high, wider = _median_interval(differences, differences, confidence, resamples, seed)
    return found, min(found + (low - found) * wider, found), max(found + (high - found) * wider, found)


def _median_interval(
    values: Array, series: Array, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Moving-block bootstrap of the median: low, high, and how much wider few blocks make it.

    Args:
        values: [R], in the order measured; neighbours share a round.
        series: [R], the same on the scale on which they vary evenly.
        confidence, resamples, seed: Of the interval.
    """
    count, length = len(values), max(2, block_length(series))
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, count, (resamples, -(-count // length), 1))
    rows = ((starts + np.arange(length)) % count).reshape(resamples, -1)[:, :count]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.median(values[rows], axis=1), [tail, 100 - tail])
    return float(low), float(high), small_sample_factor(count / length, confidence)


def latency(seconds: Array) -> Latency:
    """Return minimum, mean, percentiles and maximum of every sample.

    Args:
        seconds: Any shape, not empty.
    """
    ms = 1000 * np.asarray(seconds, dtype=np.float64).ravel()
    p50, p90, p95 = (float(np.percentile(ms, q)) for q in (50, 90, 95))
    return Latency(int(ms.size), float(ms.min()), float(ms.mean()), p50, p90, p95, percentile(ms, 99), float(ms.max()))


def windows_of(rounds: Array, count: int = WINDOWS) -> tuple[Window, ...]:
    """Return consecutive, equally long parts of a measurement; empty with fewer rounds than that.

    Args:
        rounds: [R, k] seconds: R rounds of k samples, in the order measured.
        count: Number of windows.
    """
    if len(rounds) < count:
        return ()
    parts = [1000 * part for part in np.array_split(rounds, count)]
    return tuple(Window(float(np.median(p)), float(p.mean()), float(np.percentile(p, 90)), int(p.size)) for p in parts)

"""Percentiles, windows and the interval of the speedup, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from evovit_deploy.bench import statistics


def test_percentiles_are_of_every_sample() -> None:
    samples = np.arange(1, 1001, dtype=float)
    samples[-1] = 1e6  # an outlier belongs to the distribution
    assert statistics.percentile(samples, 50) == 500.5
    assert statistics.percentile(samples, 99) == pytest.approx(990.01)
    assert statistics.percentile(samples, 100) == 1e6


def test_p99_needs_500_samples() -> None:
    assert statistics.percentile(np.ones(499), 99) is None
    assert statistics.percentile(np.ones(500), 99) == 1
    assert statistics.percentile(np.ones(3), 90) == 1
    assert statistics.percentile(np.ones(0), 50) is None


def test_windows_are_medians_of_consecutive_thirds() -> None:
    rounds = np.array([[1, 1], [1, 9], [2, 2], [2, 2], [3, 3], [3, 3]], dtype=float)
    assert statistics.windows(rounds) == (1, 2, 3)
    assert statistics.windows(rounds[:2]) == ()


@pytest.mark.parametrize(
    ("medians", "expected"),
    [((100.0, 103.0, 105.0), True), ((100.0, 103.0, 105.1), False), ((105.1, 103.0, 100.0), False), ((), None)],
)
def test_stable_means_within_five_percent(medians: tuple[float, ...], expected: bool | None) -> None:
    assert statistics.stable(medians) is expected


def correlated(generator: np.random.Generator, count: int, rho: float, sigma: float) -> np.ndarray:
    """AR(1) noise with standard deviation sigma."""
    noise = generator.normal(0, sigma * (1 - rho**2) ** 0.5, count)
    values = [generator.normal(0, sigma)]
    for step in noise[1:]:
        values.append(rho * values[-1] + step)
    return np.array(values)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_interval_covers_the_true_ratio(rho: float) -> None:
    """200 measurements of a true speedup of 1.5, with noise of their own and a disturbance that both share."""
    generator, hits, widths = np.random.default_rng(7), 0, []
    for repetition in range(200):
        shared = correlated(generator, 120, 0.9, 0.1)
        own = [correlated(generator, 120, rho, 0.05) for _ in range(2)]
        baseline = 0.3 * np.exp(shared + own[0])[:, None]
        subject = 0.2 * np.exp(shared + own[1])[:, None]
        _, low, high = statistics.speedup_interval(baseline, subject, resamples=400, seed=repetition)
        assert low is not None
        assert high is not None
        hits += low <= 1.5 <= high
        widths.append(high - low)
    assert hits >= 180
    assert np.median(widths) < 0.3  # an interval that contains everything would cover too


def test_interval_is_seeded_and_contains_the_estimate() -> None:
    generator = np.random.default_rng(0)
    baseline, subject = generator.lognormal(0, 0.3, (2, 50, 4))
    first = statistics.speedup_interval(baseline, subject, seed=1)
    assert first == statistics.speedup_interval(baseline, subject, seed=1)
    assert first != statistics.speedup_interval(baseline, subject, seed=2)
    ratio, low, high = first
    assert low is not None
    assert high is not None
    assert low <= ratio <= high
    assert ratio == np.median(baseline) / np.median(subject)


def test_equal_latencies_have_a_speedup_of_exactly_one() -> None:
    same = np.full((30, 2), 0.25)
    assert statistics.speedup_interval(same, same) == (1.0, 1.0, 1.0)


def test_too_few_rounds_have_no_interval() -> None:
    ratio, low, high = statistics.speedup_interval(np.full((5, 8), 3.0), np.full((5, 8), 2.0))
    assert (ratio, low, high) == (1.5, None, None)


def test_blocks_grow_with_autocorrelation() -> None:
    generator = np.random.default_rng(3)
    independent = statistics.block_length(correlated(generator, 400, 0.0, 1))
    dependent = statistics.block_length(correlated(generator, 400, 0.9, 1))
    assert 7 <= independent < dependent <= 100

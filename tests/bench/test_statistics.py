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


def test_windows_are_consecutive_thirds() -> None:
    rounds = np.array([[1, 1], [1, 9], [2, 2], [2, 2], [3, 3], [3, 3]], dtype=float)
    found = statistics.windows_of(rounds)
    assert [window.p50_ms for window in found] == [1000, 2000, 3000]
    assert found[0].mean_ms == 3000
    assert [window.calls for window in found] == [4, 4, 4]
    assert statistics.windows_of(rounds[:2]) == ()


def test_latency_of_a_known_distribution() -> None:
    """Exponential with mean 20 ms: percentiles are -20 ln(1 - q)."""
    samples = np.random.default_rng(1).exponential(0.02, 200_000)
    found = statistics.latency(samples)
    assert found.mean_ms == pytest.approx(20, rel=0.02)
    for value, q in ((found.p50_ms, 0.5), (found.p90_ms, 0.9), (found.p95_ms, 0.95), (found.p99_ms, 0.99)):
        assert value == pytest.approx(-20 * np.log(1 - q), rel=0.03)
    assert found.max_ms == 1000 * samples.max()
    assert found.samples == 200_000


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


@pytest.mark.parametrize(
    ("rounds", "rho", "hits", "width"), [(120, 0.0, 184, 0.04), (120, 0.6, 176, 0.06), (30, 0.0, 180, 0.1)]
)
def test_interval_covers_the_true_ratio(rounds: int, rho: float, hits: int, width: float) -> None:
    """200 measurements of a true speedup of 1.5: noise of their own, and a disturbance and a drift of 40 % that both share."""
    generator, covered, widths = np.random.default_rng(7), 0, []
    for repetition in range(200):
        shared = correlated(generator, rounds, 0.9, 0.1) + np.linspace(0, 0.4, rounds)
        own = [correlated(generator, rounds, rho, 0.05) for _ in range(2)]
        baseline = 0.3 * np.exp(shared + own[0])[:, None]
        subject = 0.2 * np.exp(shared + own[1])[:, None]
        _, low, high = statistics.speedup_interval(baseline, subject, resamples=400, seed=repetition)
        assert low is not None
        assert high is not None
        covered += low <= 1.5 <= high
        widths.append((high - low) / 1.5)
    assert covered >= hits
    assert np.median(widths) < width  # an interval that contains everything would cover too


@pytest.mark.parametrize("blocks", [4, 8, 24, 100])
def test_few_blocks_widen_like_students_t(blocks: int) -> None:
    exact = {4: 3.1824, 8: 2.3646, 24: 2.0687, 100: 1.9842}[blocks] / 1.95996  # published tables of t, n - 1 degrees
    assert statistics.small_sample_factor(blocks, 0.95) == pytest.approx(exact, rel=0.01)


def test_interval_is_seeded_and_contains_the_estimate() -> None:
    generator = np.random.default_rng(0)
    baseline, subject = generator.lognormal(0, 0.3, (2, 50, 4))
    first = statistics.speedup_interval(baseline, subject, seed=1)
    assert first == statistics.speedup_interval(baseline, subject, seed=1)
    assert len({statistics.speedup_interval(baseline, subject, seed=seed) for seed in range(9)}) > 1
    ratio, low, high = first
    assert low is not None
    assert high is not None
    assert low <= ratio <= high
    ratios = np.median(baseline, axis=1) / np.median(subject, axis=1)
    assert ratio == np.median(np.sqrt(ratios[1:] * ratios[:-1]))


def test_equal_latencies_have_a_speedup_of_exactly_one() -> None:
    same = np.full((30, 2), 0.25)
    assert statistics.speedup_interval(same, same) == (1.0, 1.0, 1.0)


def test_coming_later_does_not_count_where_the_order_alternates() -> None:
    """Whoever comes second in a round finds the machine 4 % slower; every other round that is the baseline."""
    late = np.where(np.arange(20) % 2, 1.04, 1 / 1.04)[:, None]
    ratio, low, high = statistics.speedup_interval(3 * late, np.full((20, 1), 2.0))
    assert (ratio, low, high) == pytest.approx((1.5, 1.5, 1.5))


def test_too_few_rounds_have_no_interval() -> None:
    ratio, low, high = statistics.speedup_interval(np.full((5, 8), 3.0), np.full((5, 8), 2.0))
    assert (ratio, low, high) == (pytest.approx(1.5), None, None)


def test_blocks_grow_with_autocorrelation() -> None:
    generator = np.random.default_rng(3)
    independent = statistics.block_length(correlated(generator, 400, 0.0, 1))
    dependent = statistics.block_length(correlated(generator, 400, 0.9, 1))
    assert 7 <= independent < dependent <= 100

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.evaluate.metrics import BINS, Accuracy, Calibration, Pair, Share, mcnemar, wilson

stats = pytest.importorskip("scipy.stats")
counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_equals_scipy(case: tuple[int, int]) -> None:
    hits, count = case
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_the_binomial_test(a: int, b: int) -> None:
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_of_many_images() -> None:
    assert mcnemar(2000, 2200) == pytest.approx(stats.binomtest(2000, 4200).pvalue, rel=1e-9)
    assert mcnemar(0, 5000) == 0.0  # below the smallest float


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.booleans()), min_size=1, max_size=80))
def test_calibration_error_is_the_weighted_gap_of_the_bins(samples: list[tuple[float, bool]]) -> None:
    calibration = Calibration()
    for confidence, right in samples:
        calibration.add(confidence, right)
    sure, right = np.array([c for c, _ in samples]), np.array([r for _, r in samples])
    bins = np.searchsorted(np.arange(1, BINS + 1) / BINS, sure, side="left").clip(max=BINS - 1)
    expected = sum(
        (bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean())
        for b in range(BINS)
        if (bins == b).any()
    )
    assert calibration.error == pytest.approx(expected, abs=1e-12)


def test_calibration_of_nothing_and_of_the_perfect() -> None:
    calibration = Calibration()
    assert calibration.error is None
    calibration.add(1.0, True)
    calibration.add(1.0000000001, True)  # a softmax in float64 may round up
    assert calibration.error == pytest.approx(0, abs=1e-9)


def test_accuracy_a_class() -> None:
    accuracy = Accuracy(8)
    for label, order in [
        (0, [0, 1, 2, 3, 4]),
        (0, [1, 0, 2, 3, 4]),
        (0, [2, 1, 3, 4, 5]),
        (0, [2, 1, 3, 4, 0]),
        (7, [7, 1, 2, 3, 4]),
    ]:
        accuracy.add(label, [(number, 0.2) for number in order])
    assert accuracy.share(accuracy.top1) == Share(2, 5)
    assert accuracy.share(accuracy.top5) == Share(4, 5)
    assert accuracy.share(accuracy.top1, 0) == Share(1, 4)
    assert accuracy.share(accuracy.top1, 3).value is None
    assert [accuracy.worst_mistake(label) for label in (0, 7)] == [2, None]


def test_pair_counts_what_mcnemar_needs() -> None:
    pair = Pair()
    flips = [pair.add(1, [(a, 0.9)], [(b, 0.9)]) for a, b in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (1, 0)]]
    assert flips == [False, True, True, False, True, True]
    assert (pair.agree, pair.count, pair.only_model, pair.only_reference) == (2, 6, 2, 1)


def test_pair_without_labels() -> None:
    pair = Pair()
    assert pair.add(None, [(1, 0.9)], [(2, 0.9)])
    assert (pair.only_model, pair.only_reference) == (0, 0)

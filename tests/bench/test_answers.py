"""What figures mean."""

from __future__ import annotations

import pytest

from evovit_deploy.bench.answers import Answer, answers
from evovit_deploy.bench.report import Peaks
from tests.bench.made import point, report


def of(question: str, found: list[Answer], subject: str = "evo") -> Answer:
    return next(answer for answer in found if (answer.question, answer.subject) == (question, subject))


def test_break_even_is_where_the_interval_leaves_one() -> None:
    found = of("break_even", answers(report()))
    assert found.value == 8
    assert found.text == "evo is faster than deit from batch 8 on (measured: 1, 8, 32)"


def test_break_even_everywhere_and_nowhere() -> None:
    everywhere = report(point("evo", 1, 5, (2, 1.9, 2.1)), point("deit", 1, 10))
    assert of("break_even", answers(everywhere)).value == 1
    # Faster at batch 1 only: there is no batch from which on it pays.
    slower = report(point("evo", 1, 5, (2, 1.9, 2.1)), point("evo", 8, 9, (0.9, 0.85, 0.95)), point("deit", 1, 10))
    assert of("break_even", answers(slower)).value is None


def test_budget_takes_the_batch_with_the_most_throughput_that_fits() -> None:
    assert of("budget", answers(report(), 61.0)).value == 8  # p99 of 40 ms is 60 ms
    found = of("budget", answers(report(), 59.0))
    assert found.value == 1
    assert "p99 15.00 ms" in found.text
    assert of("budget", answers(report(), 14.0)).value is None


def test_budget_uses_p95_where_there_is_no_p99() -> None:
    few = report(point("evo", 1, 10, p99_ms=None))
    assert "p95 12.00 ms" in of("budget", answers(few, 13.0)).text
    old = report(point("evo", 1, 10, p99_ms=None, p95_ms=None))
    assert "p90 11.00 ms" in of("budget", answers(old, 13.0)).text


def test_ideal_and_paper() -> None:
    found = answers(report())
    assert of("ideal", found).value == pytest.approx(1.5 / 1.5)
    assert of("paper", found).value == pytest.approx(1.5 / 1.6)


def test_share_of_the_peak() -> None:
    with_peaks = report(peaks=(Peaks("cpu", "fp32", 1e12, 1e11),))
    found = answers(with_peaks)
    per_second = 32 / 0.150
    assert of("compute", found).value == pytest.approx(3.0e9 * per_second / 1e12)
    assert of("bandwidth", found).value == pytest.approx((8.8e7 / 32 + 6e7) * per_second / 1e11)
    assert not [a for a in answers(report(peaks=(Peaks("cpu", "fp16", 1e12, 1e11),))) if a.question == "compute"]

"""What figures mean."""

from __future__ import annotations

import dataclasses

import pytest

from evovit_deploy.bench import Speedup
from evovit_deploy.bench.answers import Answer, answers
from evovit_deploy.bench.report import Peaks
from evovit_deploy.bench.summary import summary
from tests.bench.made import point, report, subject


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


def test_the_first_answer_is_how_much_faster() -> None:
    first = answers(report())[0]
    assert (first.question, first.value) == ("speedup", 1.5)
    assert first.text == (
        "evo: 1.50x faster than deit at batch 32 [95% 1.45, 1.55]; 1.40x faster at batch 8 [95% 1.35, 1.45]; "
        "no measurable difference at batch 1 [95% 0.97, 1.07]"
    )


@pytest.mark.parametrize(
    ("speedup", "stable", "said"),
    [
        ((0.8, 0.78, 0.82), True, "1.25x slower than deit at batch 8 [95% 1.22, 1.28]"),
        ((1.004, 1.002, 1.006), True, "no measurable difference from deit at batch 8 [95% 1.00, 1.01]"),
        ((1.4, 1.3, 1.5), True, "1.40x faster than deit at batch 8 [95% 1.30, 1.50]"),
        ((1.4, 1.3, 1.5), False, "speedup over deit not measurable at batch 8 (unstable, 95% 1.30, 1.50)"),
        # What both sides share cancels: the speedup is known although the milliseconds are not.
        ((1.4, 1.37, 1.43), False, "1.40x faster than deit at batch 8 [95% 1.37, 1.43]"),
        ((1.4, None, None), None, "speedup over deit not measurable at batch 8 (too few rounds)"),
    ],
)
@pytest.mark.parametrize("which", ["evo", "deit"])
def test_a_speedup_that_is_not_known_is_not_claimed(
    speedup: tuple[float, float, float], stable: bool | None, said: str, which: str
) -> None:
    """Whichever side did not settle."""
    settled = {name: stable if name == which else True for name in ("evo", "deit")}
    found = report(point("evo", 8, 10, speedup, stable=settled["evo"]), point("deit", 8, 14, stable=settled["deit"]))
    assert of("speedup", answers(found)).text == f"evo: {said}"
    if "not measurable" in said:
        assert not [a for a in answers(found) if a.question in ("ideal", "paper")]
        assert of("break_even", answers(found)).value is None
        table = summary([found])
        assert table is not None
        assert table.rows[0][1] == "not measurable"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("deit_small_patch16_224 twin", "the vanilla twin"),
        ("deit_small_patch16_224 trimmed", "the trimmed twin"),
        ("deit_small_patch16_224 stock-compiled", "stock deit_small_patch16_224 under torch.compile"),
        ("deit_small_patch16_224 stock", "stock deit_small_patch16_224"),
        ("other", "other"),
    ],
)
def test_the_baseline_in_words(label: str, words: str) -> None:
    evo = dataclasses.replace(point("evo", 1, 10), speedup=Speedup(label, 1.4, 1.39, 1.41))
    found = report(evo, point(label, 1, 14), subjects=(subject("evo"), subject(label)), baseline=label)
    assert answers(found)[0].text == f"evo: 1.40x faster than {words} at batch 1 [95% 1.39, 1.41]"


def test_no_share_of_a_peak_is_above_all_of_it() -> None:
    """Small models move data within the caches, faster than large copies; and machines are busier at one time than another."""
    low = answers(report(peaks=(Peaks("cpu", "fp32", 1e11, 1e9),)))
    assert not [answer for answer in low if answer.question in ("compute", "bandwidth")]
    mixed = answers(report(peaks=(Peaks("cpu", "fp32", 1e12, 1e9),)))
    assert {answer.question for answer in mixed} >= {"compute"}
    assert not [answer for answer in mixed if answer.question == "bandwidth"]

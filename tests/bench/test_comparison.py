"""Regressions between records."""

from __future__ import annotations

import dataclasses

import pytest

from evovit_deploy.bench.comparison import compare, different_machines
from evovit_deploy.bench.report import Window
from evovit_deploy.errors import InputError
from tests.bench.made import ENVIRONMENT, point, report


def verdicts(before: float, after: float, tolerance: float = 0.05) -> str:
    (change,) = compare([report(point("evo", 1, before))], [report(point("evo", 1, after))], tolerance)
    return change.verdict


def test_latency_verdicts() -> None:
    assert verdicts(10, 10) == "same"
    assert verdicts(10, 10.4) == "same"  # beyond the windows, within the tolerance
    assert verdicts(10, 11) == "slower"
    assert verdicts(11, 10) == "faster"
    assert verdicts(10, 11, tolerance=0.2) == "same"


def test_a_change_within_the_windows_is_none() -> None:
    windows = tuple(Window(median) for median in (9.0, 11.0, 12.0))
    noisy = dataclasses.replace(point("evo", 1, 11), windows=windows)
    (change,) = compare([report(point("evo", 1, 10))], [report(noisy)])
    assert change.slowdown == pytest.approx(1.1)
    assert change.verdict == "same"


def test_speedups_change_when_their_intervals_part() -> None:
    def with_speedup(*values: float) -> list:  # type: ignore[type-arg]
        return [report(point("evo", 1, 10, values))]  # type: ignore[arg-type]

    def verdict(*values: float) -> str:
        found = compare(with_speedup(1.5, 1.45, 1.55), with_speedup(*values))
        return next(change.verdict for change in found if change.quantity == "speedup")

    assert verdict(1.3, 1.25, 1.35) == "slower"
    assert verdict(1.4, 1.30, 1.50) == "same"
    assert verdict(1.44, 1.43, 1.449) == "same"  # apart, and within the tolerance
    assert verdict(1.8, 1.75, 1.85) == "faster"


def test_the_last_of_several_measurements_counts() -> None:
    (change,) = compare([report(point("evo", 1, 10))], [report(point("evo", 1, 20)), report(point("evo", 1, 10))])
    assert change.verdict == "same"


def test_nothing_in_common() -> None:
    with pytest.raises(InputError, match=r"evo at batch 1 \(onnxruntime cpu fp32\); the second evo at batch 2"):
        compare([report(point("evo", 1, 10))], [report(point("evo", 2, 10))])


def test_other_machines_are_told() -> None:
    other = {**ENVIRONMENT, "cpu": "Other", "versions": {"torch": "3.0"}}
    assert different_machines([report()], [report(environment=other)]) == [
        "cpu: Test CPU and Other",
        "torch 2.0 and 3.0",
    ]
    assert different_machines([report()], [report()]) == []

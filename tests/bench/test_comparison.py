"""Regressions between records."""

from __future__ import annotations

import dataclasses

import pytest

from evovit_deploy.bench.comparison import compare, different_machines
from evovit_deploy.bench.report import BenchReport, Window
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
    with pytest.raises(InputError, match=r"evo at batch 1 \(onnxruntime cpu fp32 float32\); the second evo at batch 2"):
        compare([report(point("evo", 1, 10))], [report(point("evo", 2, 10))])


def test_other_machines_are_told() -> None:
    other = {**ENVIRONMENT, "cpu": "Other", "versions": {"torch": "3.0"}}
    assert different_machines([report()], [report(environment=other)]) == [
        "cpu: Test CPU and Other",
        "torch 2.0 and 3.0",
    ]
    assert different_machines([report()], [report()]) == []


def pair(evo: float, deit: float, speedup: tuple[float, float, float], **more: object) -> list[BenchReport]:
    return [report(point("evo", 1, evo, speedup, **more), point("deit", 1, deit))]


BEFORE = pair(10, 15, (1.5, 1.48, 1.52))


@pytest.mark.parametrize(
    ("after", "evo", "speedup"),
    [
        (pair(20, 30, (1.5, 1.48, 1.52)), "alike", "same"),  # a machine of half the speed
        (pair(5, 7.5, (1.5, 1.48, 1.52)), "alike", "same"),
        (pair(20, 15, (0.75, 0.74, 0.76)), "slower", "slower"),  # the model alone
        (pair(20, 20, (1.0, 0.98, 1.02)), "slower", "slower"),  # the machine, and the model more
        (pair(20, 40, (2.0, 1.98, 2.02)), "alike", "faster"),  # a slower machine, and a better model
        (pair(10, 30, (3.0, 2.98, 3.02)), "same", "faster"),  # the baseline alone
        (pair(8, 8, (1.0, 0.98, 1.02)), "alike", "slower"),  # a faster machine hides no regression
        # An unknown speedup judges nothing: then both must have moved alike.
        (pair(20, 30, (1.5, 1.2, 1.8), stable=False), "alike", "same"),
        (pair(20, 20, (1.0, 0.4, 1.6), stable=False), "slower", "same"),
    ],
)
def test_a_model_beside_its_baseline_is_judged_by_the_speedup(after: list[BenchReport], evo: str, speedup: str) -> None:
    found = {(c.subject, c.quantity): c.verdict for c in compare(BEFORE, after)}
    assert found == {("evo", "latency"): evo, ("evo", "speedup"): speedup, ("deit", "latency"): "baseline"}


def test_what_a_change_rests_on_is_stable_or_not() -> None:
    noisy = pair(10, 15, (1.5, 1.2, 1.8), stable=False)
    drifting = pair(10, 15, (1.5, 1.48, 1.52), stable=False)  # the milliseconds, not the speedup
    for records, latency, speedup in ((BEFORE, True, True), (noisy, False, False), (drifting, False, True)):
        for old, new in ((BEFORE, records), (records, BEFORE)):
            found = {(c.subject, c.quantity): c.stable for c in compare(old, new)}
            assert (found["evo", "latency"], found["evo", "speedup"]) == (latency, speedup)

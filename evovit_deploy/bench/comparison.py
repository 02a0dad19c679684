"""Two records side by side: what became slower, by more than the machine's own unsteadiness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError
from . import answers
from .report import BenchReport, Point
from .subject import Subject

__all__ = ["Change", "compare", "different_machines"]

Verdict = Literal["slower", "faster", "same", "alike", "baseline"]
Measured = tuple[BenchReport, Point]


@dataclass(frozen=True)
class Change:
    """One model at one batch size, before and after.

    Attributes:
        subject, batch: Which.
        quantity: ``latency`` (p50, milliseconds) or ``speedup``.
        before, after: The two values.
        slowdown: After over before for a latency, before over after for a speedup; above 1 is worse.
        verdict: ``slower`` or ``faster`` beyond the tolerance and beyond what the measurements leave open; ``alike`` for a
            latency that moved as the baseline's beside it did, by which the speedup judges; ``baseline`` for that one's own.
        stable: Whether what it rests on settled, before and after.
    """

    subject: str
    batch: int
    quantity: str
    before: float
    after: float
    slowdown: float
    verdict: Verdict
    stable: bool


def compare(before: Sequence[BenchReport], after: Sequence[BenchReport], tolerance: float = 0.05) -> list[Change]:
    """Return every model and batch size that both hold; of several measurements the last counts.

    A latency changed if all windows of one measurement lie beyond all windows of the other, and the medians differ by more
    than ``tolerance``. A speedup changed if the intervals do not overlap and the ratios differ by more than ``tolerance``; this
    also holds between machines, as both sides of a speedup ran on the same. So a latency is no change where the baseline beside
    it went the same way and the speedup did not change: the machine did, or what both run on.

    Args:
        before, after: From :func:`.reading.read_records`.
        tolerance: Share of the older value.

    Raises:
        InputError: They have nothing in common.
    """
    old, new = _points(before), _points(after)
    changes = []
    for key in old:
        if key in new:
            changes += _changes(old[key], new[key], tolerance)
    if not changes:
        raise InputError(
            f"nothing to compare: the first holds {_names(old)}; the second {_names(new)}. A model is the same with the same "
            f"label, backend, device, precision and input."
        )
    return changes


def different_machines(before: Sequence[BenchReport], after: Sequence[BenchReport]) -> list[str]:
    """Say what differs between the machines of the last runs, in words; latencies then say little."""
    a, b = before[-1].environment, after[-1].environment
    found = [f"{key}: {a.get(key)} and {b.get(key)}" for key in ("cpu", "threads") if a.get(key) != b.get(key)]
    if [gpu["name"] for gpu in a.get("gpus", ())] != [gpu["name"] for gpu in b.get("gpus", ())]:
        found.append("other GPUs")
    versions = (a.get("versions", {}), b.get("versions", {}))
    for name in sorted(set(versions[0]) & set(versions[1])):
        if versions[0][name] != versions[1][name]:
            found.append(f"{name} {versions[0][name]} and {versions[1][name]}")
    return found


def _points(reports: Sequence[BenchReport]) -> dict[tuple[str, ...], Measured]:
    return {_key(report.subject(p.subject), p.batch): (report, p) for report in reports for p in report.points}


def _key(subject: Subject, batch: int) -> tuple[str, ...]:
    kind = subject.device.partition(":")[0]
    return (subject.label, str(batch), subject.backend, kind, subject.precision, subject.input, str(subject.image_size))


def _names(points: dict[tuple[str, ...], Measured]) -> str:
    return ", ".join(sorted({f"{key[0]} at batch {key[1]} ({' '.join(key[2:5])})" for key in points})) or "nothing"


def _changes(before: Measured, after: Measured, tolerance: float) -> list[Change]:
    old, new = before[1], after[1]
    latency = _latency(old, new, tolerance)
    a, b, speedup = old.speedup, new.speedup, None
    if a is not None and b is not None and a.against == b.against:
        apart: Verdict = "same"
        if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
            apart = "slower" if b.high < a.low else "faster" if b.low > a.high else "same"
        known = all(answers.verdict(*one) not in ("unstable", "short") for one in (before, after))
        verdict = _beyond(a.ratio / b.ratio, apart, tolerance)
        speedup = Change(old.subject, old.batch, "speedup", a.ratio, b.ratio, a.ratio / b.ratio, verdict, known)
    if all(report.baseline == point.subject and _judged(report, point) for report, point in (before, after)):
        latency = replace(latency, verdict="baseline")
    elif speedup is not None and _alike(before, after, latency, speedup, tolerance):
        latency = replace(latency, verdict="alike")
    return [latency] if speedup is None else [latency, speedup]


def _latency(old: Point, new: Point, tolerance: float) -> Change:
    windows = [[window.p50_ms for window in point.windows] or [point.p50_ms] for point in (old, new)]
    apart: Verdict = "same"
    if min(windows[1]) > max(windows[0]):
        apart = "slower"
    elif max(windows[1]) < min(windows[0]):
        apart = "faster"
    slowdown = new.p50_ms / old.p50_ms
    verdict, stable = _beyond(slowdown, apart, tolerance), bool(old.stable and new.stable)
    return Change(old.subject, old.batch, "latency", old.p50_ms, new.p50_ms, slowdown, verdict, stable)


def _judged(report: BenchReport, baseline: Point) -> bool:
    """Whether another model's speedup is against this point."""
    return any(p.speedup is not None and p.batch == baseline.batch for p in report.points)


def _alike(before: Measured, after: Measured, latency: Change, speedup: Change, tolerance: float) -> bool:
    """Whether the baseline's latency went the same way, and the speedup stayed or went the other."""
    sides = [
        next((p for p in r.points if (p.subject, p.batch) == (r.baseline, point.batch)), None)
        for r, point in (before, after)
    ]
    if latency.verdict == "same" or sides[0] is None or sides[1] is None:
        return False
    moved = sides[1].p50_ms / sides[0].p50_ms
    if latency.verdict != _beyond(moved, latency.verdict, tolerance):
        return False
    if speedup.stable:
        return speedup.verdict != latency.verdict
    return _beyond(latency.slowdown / moved, latency.verdict, tolerance) == "same"


def _beyond(slowdown: float, apart: Verdict, tolerance: float) -> Verdict:
    """``apart`` if the values differ by more than the tolerance too."""
    return apart if (slowdown > 1 + tolerance if apart == "slower" else slowdown < 1 / (1 + tolerance)) else "same"

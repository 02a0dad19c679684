"""Two records side by side: what became slower, by more than the machine's own unsteadiness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError
from . import answers
from .quantities import MISSING, P50, SPEEDUP, Measured, Quantity, quantity, shown
from .report import BenchReport, Point
from .subject import Subject
from .text import Table

__all__ = ["Change", "change_table", "compare", "different_machines"]

Verdict = Literal["slower", "faster", "same", "alike", "baseline"]


@dataclass(frozen=True)
class Change:
    """One model at one batch size, before and after.

    Attributes:
        subject, batch: Which.
        quantity: Name of a row of :data:`.quantities.QUANTITIES`: ``latency`` (p50, milliseconds), ``speedup``.
        before, after: The two values.
        slowdown: After over before for what should be low, before over after for what should be high; above 1 is worse.
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


def change_table(changes: Sequence[Change]) -> Table:
    """Return a row for each change."""
    rows = []
    for c in changes:
        unit = quantity(c.quantity).unit
        values = [f"{value:.{unit.digits}f} {unit.name}".rstrip() for value in (c.before, c.after)]
        change = f"{100 * (c.after / c.before - 1):+.1f}%" if c.before else MISSING
        rows.append((c.subject, str(c.batch), c.quantity, *values, change, c.verdict, "yes" if c.stable else "NO"))
    header = ("model", "batch", "quantity", "before", "after", "change", "verdict", "stable")
    return Table("Before and after", header, tuple(rows), group=None)


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
    return ", ".join(sorted({f"{key[0]} at batch {key[1]} ({' '.join(key[2:6])})" for key in points})) or "nothing"


def _changes(before: Measured, after: Measured, tolerance: float) -> list[Change]:
    rows = (row for row in shown("compare") if row.better is not None)
    found = {row.name: change for row in rows if (change := _change(row, before, after, tolerance)) is not None}
    latency, speedup = found[P50.name], found.get(SPEEDUP.name)
    if all(point.subject in report.baselines and _judged(report, point) for report, point in (before, after)):
        found[P50.name] = replace(latency, verdict="baseline")
    elif speedup is not None and _alike(before, after, latency, speedup, tolerance):
        found[P50.name] = replace(latency, verdict="alike")
    return list(found.values())


def _change(row: Quantity, before: Measured, after: Measured, tolerance: float) -> Change | None:
    """A quantity before and after; None where either side has no value, or speedups are against different models."""
    sides = (before, after)
    old, new = (row.value(*one) for one in sides)
    if old is None or new is None or (row is SPEEDUP and len({p.speedup and p.speedup.against for _, p in sides}) > 1):
        return None
    # As if lower were better: the ranges of a quantity that should be high are turned round.
    sign = 1 if row.better == "lower" else -1
    ranges = [
        None if between is None else sorted(sign * end for end in between)
        for between in (row.range(*one) for one in sides)
    ]
    apart: Verdict = "same"
    if ranges[0] is not None and ranges[1] is not None:
        apart = "slower" if ranges[1][0] > ranges[0][1] else "faster" if ranges[1][1] < ranges[0][0] else "same"
    worse, better = (new, old) if row.better == "lower" else (old, new)
    slowdown = worse / better if better else float(worse == better) or math.inf
    stable = all(bool(p.stable) for _, p in sides)
    if row is SPEEDUP:  # drift that both models share cancels in it
        stable = all(answers.verdict(*one) not in ("unstable", "short") for one in sides)
    point = before[1]
    return Change(point.subject, point.batch, row.name, old, new, slowdown, _beyond(slowdown, apart, tolerance), stable)


def _judged(report: BenchReport, baseline: Point) -> bool:
    """Whether another model's speedup is against this point."""
    return any(p.speedup is not None and p.batch == baseline.batch for p in report.points)


def _alike(before: Measured, after: Measured, latency: Change, speedup: Change, tolerance: float) -> bool:
    """Whether the baseline's latency went the same way, and the speedup stayed or went the other."""
    sides = [report.beside(point) for report, point in (before, after)]
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

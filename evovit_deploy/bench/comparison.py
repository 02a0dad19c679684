"""Two records side by side: what became slower, by more than the machine's own unsteadiness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .report import BenchReport, Point, Subject

__all__ = ["Change", "compare", "different_machines"]

Verdict = Literal["slower", "faster", "same"]


@dataclass(frozen=True)
class Change:
    """One model at one batch size, before and after.

    Attributes:
        subject, batch: Which.
        quantity: ``latency`` (p50, milliseconds) or ``speedup``.
        before, after: The two values.
        slowdown: After over before for a latency, before over after for a speedup; above 1 is worse.
        verdict: ``slower`` or ``faster`` beyond the tolerance and beyond what the measurements leave open.
    """

    subject: str
    batch: int
    quantity: str
    before: float
    after: float
    slowdown: float
    verdict: Verdict


def compare(before: Sequence[BenchReport], after: Sequence[BenchReport], tolerance: float = 0.05) -> list[Change]:
    """Every model and batch size that both hold; of several measurements the last counts.

    A latency changed if all windows of one measurement lie beyond all windows of the other, and the medians differ by more
    than ``tolerance``. A speedup changed if the intervals do not overlap and the ratios differ by more than ``tolerance``; this
    also holds between machines, as both sides of a speedup ran on the same.

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
            changes += _changes(key[0], old[key], new[key], tolerance)
    if not changes:
        raise InputError(
            f"nothing to compare: the first holds {_names(old)}; the second {_names(new)}. A model is the same with the same "
            f"label, backend, device, precision and input."
        )
    return changes


def different_machines(before: Sequence[BenchReport], after: Sequence[BenchReport]) -> list[str]:
    """What differs between the machines of the last runs, in words; latencies then say little."""
    a, b = before[-1].environment, after[-1].environment
    found = [f"{key}: {a.get(key)} and {b.get(key)}" for key in ("cpu", "threads") if a.get(key) != b.get(key)]
    if [gpu["name"] for gpu in a.get("gpus", ())] != [gpu["name"] for gpu in b.get("gpus", ())]:
        found.append("other GPUs")
    versions = (a.get("versions", {}), b.get("versions", {}))
    for name in sorted(set(versions[0]) & set(versions[1])):
        if versions[0][name] != versions[1][name]:
            found.append(f"{name} {versions[0][name]} and {versions[1][name]}")
    return found


def _points(reports: Sequence[BenchReport]) -> dict[tuple[str, ...], Point]:
    found = {}
    for report in reports:
        for point in report.points:
            found[_key(report.subject(point.subject), point.batch)] = point
    return found


def _key(subject: Subject, batch: int) -> tuple[str, ...]:
    kind = subject.device.partition(":")[0]
    return (subject.label, str(batch), subject.backend, kind, subject.precision, subject.input, str(subject.image_size))


def _names(points: dict[tuple[str, ...], Point]) -> str:
    return ", ".join(sorted({f"{key[0]} at batch {key[1]} ({' '.join(key[2:5])})" for key in points})) or "nothing"


def _changes(label: str, old: Point, new: Point, tolerance: float) -> list[Change]:
    windows = [[window.p50_ms for window in point.windows] or [point.p50_ms] for point in (old, new)]
    apart: Verdict = "same"
    if min(windows[1]) > max(windows[0]):
        apart = "slower"
    elif max(windows[1]) < min(windows[0]):
        apart = "faster"
    found = [_change(label, old.batch, "latency", old.p50_ms, new.p50_ms, new.p50_ms / old.p50_ms, apart, tolerance)]
    a, b = old.speedup, new.speedup
    if a is not None and b is not None:
        apart = "same"
        if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
            apart = "slower" if b.high < a.low else "faster" if b.low > a.high else "same"
        found.append(_change(label, old.batch, "speedup", a.ratio, b.ratio, a.ratio / b.ratio, apart, tolerance))
    return found


def _change(
    label: str,
    batch: int,
    quantity: str,
    before: float,
    after: float,
    slowdown: float,
    apart: Verdict,
    tolerance: float,
) -> Change:
    beyond = slowdown > 1 + tolerance if apart == "slower" else slowdown < 1 / (1 + tolerance)
    return Change(label, batch, quantity, before, after, slowdown, apart if beyond else "same")

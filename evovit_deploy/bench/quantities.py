"""The quantities of a benchmark, a row each: text, Markdown, page, plots and comparison read the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .report import BenchReport, Point

__all__ = [
    *("DEVICE_SPEEDUP", "MISSING", "MS", "P50", "P95", "PER_SECOND", "QUANTITIES", "SPEEDUP", "THROUGHPUT"),
    *("Measured", "Quantity", "Unit", "device_speedup", "quantity", "settled", "shown"),
]

MISSING = "—"
Place = Literal["text", "markdown", "compare"]
EVERYWHERE: tuple[Place, ...] = ("text", "markdown", "compare")
Measured = tuple[BenchReport, Point]


@dataclass(frozen=True)
class Unit:
    """How values of a unit are written.

    Attributes:
        name: ``ms``; empty for a ratio.
        digits: After the point, in a terminal and on the page.
        brief: Likewise in Markdown, where a table has less room.
        coarse: From this value on, a digit less of either.
        percent: Whether 0.5 is written 50%.
    """

    name: str
    digits: int
    brief: int
    coarse: float = math.inf
    percent: bool = False

    def show(self, value: float | None, *, brief: bool = False, missing: str = MISSING) -> str:
        """Format a value; ``missing`` where there is none."""
        if value is None:
            return missing
        digits = (self.brief if brief else self.digits) - (value >= self.coarse)
        return f"{value:.{digits}{'%' if self.percent else 'f'}}"


MS = Unit("ms", 3, 2, coarse=10)
PER_SECOND = Unit("images/s", 1, 1, coarse=100)
TIMES = Unit("", 3, 2)
SHARE = Unit("", 1, 1, percent=True)
WORD = Unit("", 0, 0)


@dataclass(frozen=True)
class Quantity:
    """One quantity of one model at one batch size.

    Attributes:
        key: Where a record holds it, below the point (``device.p50_ms``) or below its subject (``facts.top1``).
        name: In words, as `evovit bench compare` and the axes of plots call it.
        label: Of its column.
        unit: Its unit and digits.
        better: ``lower`` or ``higher``; None is compared with nothing.
        places: Where it is shown.
        heading: Of its column in Markdown; ``label`` if empty.
        known_only: Leave the column out where no row has a value.
        missing: What stands in place of a value.
        of: Takes it from a report; None reads ``key``.
        cell: Writes it, in Markdown if the last argument is true; None is the value in its unit.
        spread: Lowest and highest value that the measurement leaves open; None where it does not say, which leaves every change
            open. Without it a value is taken as exact.
    """

    key: str
    name: str
    label: str
    unit: Unit
    better: Literal["lower", "higher"] | None = None
    places: tuple[Place, ...] = EVERYWHERE
    heading: str = ""
    known_only: bool = False
    missing: str = MISSING
    of: Callable[[BenchReport, Point], float | None] | None = None
    cell: Callable[[BenchReport, Point, bool], str] | None = None
    spread: Callable[[Point], tuple[float, float] | None] | None = None

    def value(self, report: BenchReport, point: Point) -> float | None:
        """Return the number, None where it was not measured."""
        if self.of is not None:
            return self.of(report, point)
        parts = self.key.split(".")
        found: Any = point
        if not hasattr(point, parts[0]):
            found = next((subject for subject in report.subjects if subject.label == point.subject), None)
        for part in parts:
            found = None if found is None else getattr(found, part)
        return None if found is None else float(found)

    def text(self, report: BenchReport, point: Point, *, brief: bool = False) -> str:
        """Return the cell of a table; ``brief`` is Markdown's."""
        if self.cell is not None:
            return self.cell(report, point, brief)
        return self.unit.show(self.value(report, point), brief=brief, missing=self.missing)

    def title(self, *, brief: bool = False) -> str:
        """Return the head of its column."""
        return (self.heading if brief else "") or self.label

    def range(self, report: BenchReport, point: Point) -> tuple[float, float] | None:
        """Return the lowest and highest value that the measurement leaves open, None where it does not say."""
        if self.spread is not None:
            return self.spread(point)
        value = self.value(report, point)
        return None if value is None else (value, value)


def shown(place: Place, measured: Iterable[Measured] | None = None) -> list[Quantity]:
    """Return the rows that are shown in a place.

    Args:
        place: Where.
        measured: What the columns of a table are for; those that ask for it are left out if none of these has a value.
    """
    rows = [row for row in QUANTITIES if place in row.places]
    if measured is None:
        return rows
    points = list(measured)
    return [row for row in rows if not row.known_only or any(row.value(*one) is not None for one in points)]


def quantity(name: str) -> Quantity:
    """Return the compared row of a name."""
    return next(row for row in shown("compare") if row.name == name)


def settled(report: BenchReport, point: Point) -> bool:
    """Whether both sides of a pair settled."""
    other = report.beside(point)
    return bool(point.stable and (other is None or other.stable))


def _windows(point: Point) -> tuple[float, float]:
    medians = [window.p50_ms for window in point.windows] or [point.p50_ms]
    return min(medians), max(medians)


def _interval(point: Point) -> tuple[float, float] | None:
    found = point.speedup
    return None if found is None or found.low is None or found.high is None else (found.low, found.high)


def _speedup(report: BenchReport, point: Point, brief: bool) -> str:
    if point.subject in report.baselines and not brief:
        return "baseline"
    if point.speedup is None:
        return "not measured" if brief else MISSING
    between, none = _interval(point), MISSING if brief else "too few rounds"
    interval = none if between is None else ", ".join(TIMES.show(end, brief=brief) for end in between)
    return f"{TIMES.show(point.speedup.ratio, brief=brief)} [{interval}]"


def _stable(report: BenchReport, point: Point, brief: bool) -> str:
    if brief:
        return "yes" if settled(report, point) else "no"
    return {True: "yes", False: "NO", None: "too short"}[point.stable]


def _baseline(report: BenchReport, point: Point, brief: bool) -> str:
    """A label of the baseline without the name of the model, which is that of the row."""
    return report.baseline_kind or MISSING


def _its_p50(report: BenchReport, point: Point) -> float | None:
    other = report.beside(point)
    return None if other is None else other.p50_ms


def device_speedup(report: BenchReport, point: Point) -> float | None:
    """Return the baseline's time on the device over the model's, medians; None unless both were queued ahead."""
    other = report.beside(point)
    if point.subject in report.baselines or other is None or not (point.queued and other.queued):
        return None
    return other.device.p50_ms / point.device.p50_ms if other.device and point.device else None


def _known_device(report: BenchReport, point: Point) -> float | None:
    """The time on the device, unless an older record holds it, which does not say whether launch gaps are in it."""
    return point.device.p50_ms if point.device is not None and point.launched is not None else None


def _launched(report: BenchReport, point: Point, brief: bool) -> str:
    return MISSING if point.launched is None else f"{point.launched}{'' if point.queued else ', gaps in it'}"


def _mac_ratio(report: BenchReport, point: Point) -> float | None:
    macs = {subject.label: subject.facts.macs for subject in report.subjects}
    own, ideal = macs[point.subject], macs.get(report.baseline or "")
    return ideal / own if ideal and own else None


P50 = Quantity("p50_ms", "latency", "p50 ms", MS, "lower", spread=_windows)
P95 = Quantity("p95_ms", "p95 latency", "p95 ms", MS, places=("text",))
THROUGHPUT = Quantity(
    "images_per_second", "throughput", "img/s", PER_SECOND, places=("text", "markdown"), heading="images/s"
)
SPEEDUP = Quantity(
    "speedup.ratio", "speedup", "speedup", TIMES, "higher", heading="speedup [95% interval]", cell=_speedup, spread=_interval
)  # fmt: skip

DEVICE_SPEEDUP = Quantity(
    "device_speedup", "speedup on the device", "device speedup", TIMES, places=("text", "markdown"), known_only=True,
    of=device_speedup,
)  # fmt: skip

# In the order of the columns. A new row is shown everywhere unless it says otherwise.
QUANTITIES: tuple[Quantity, ...] = (
    Quantity("device.p50_ms", "device time", "device ms", MS, places=("text",), known_only=True),
    Quantity("device.p50_ms", "device time", "device ms", MS, places=("markdown",), known_only=True, of=_known_device),
    Quantity(
        "launched",
        "launches",
        "launched",
        WORD,
        places=("text", "markdown"),
        known_only=True,
        of=_known_device,
        cell=_launched,
    ),
    DEVICE_SPEEDUP,
    P50,
    Quantity("p90_ms", "p90 latency", "p90 ms", MS, places=("text",)),
    P95,
    Quantity("p99_ms", "p99 latency", "p99 ms", MS, places=("text",)),
    THROUGHPUT,
    Quantity("baseline", "baseline", "baseline", WORD, places=("markdown",), cell=_baseline),
    Quantity("p50_ms", "its latency", "its p50 ms", MS, places=("markdown",), of=_its_p50),
    SPEEDUP,
    Quantity("facts.macs", "MAC ratio", "MAC ratio", TIMES, places=("markdown",), of=_mac_ratio),
    Quantity("stable", "stable", "stable", WORD, places=("text", "markdown"), cell=_stable),
    Quantity("facts.top1", "top-1", "top-1", SHARE, places=("text",), known_only=True, missing="not evaluated"),
)

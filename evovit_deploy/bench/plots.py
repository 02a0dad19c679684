"""Plots of reports: latency against throughput, and speedup against batch."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..machine.extras import require
from ..storage.ownership import mark
from .labels import Label, place
from .quantities import P50, P95, THROUGHPUT, Quantity
from .report import BenchReport, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["canvas", "latency_plot", "literal", "png", "speedup_plot", "tidy"]

# Colours that stay apart for colour-blind readers (Okabe and Ito), and markers for those who print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PURPOSE = "a page with plots (tables come without -o)"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def latency_plot(report: BenchReport, width: float, height: float) -> Figure:
    """Return latency (p50, whiskers to p95) against throughput; a line for each model, a mark for each batch size.

    Args:
        report: At least one point.
        width, height: Inches.
    """
    figure, axes = canvas(width, height, PURPOSE)
    labels: list[Label] = []
    lines = []
    for index, subject in enumerate(report.subjects):
        points = report.of(subject.label)
        if not points:
            continue
        x, y = (_values(row, report, points) for row in (THROUGHPUT, P50))
        tails = [
            (P95.value(report, point) or middle) - middle for point, middle in zip(points, y)
        ]  # schema 1 has no p95
        style = _style(index)
        axes.errorbar(x, y, yerr=[[0.0] * len(tails), tails], label=literal(subject.label), **style)
        places = list(zip(x, y))
        labels += [(f"{point.batch}", [at], style["color"]) for point, at in zip(points, places)]
        lines.append(np.array(places))
        lines += [np.array([at, (at[0], at[1] + tail)]) for at, tail in zip(places, tails)]
    axes.set_xlabel(f"{THROUGHPUT.name}, {THROUGHPUT.unit.name}")
    axes.set_ylabel(f"{P50.name}, {P50.unit.name} (p50; whisker to p95)")
    _logarithmic(axes.set_xscale, axes.xaxis, _values(THROUGHPUT, report, report.points), width)
    _logarithmic(axes.set_yscale, axes.yaxis, _values(P50, report, report.points), 2 * height)
    _finish(figure, axes)
    place(figure, axes, labels, lines)
    return figure


def speedup_plot(report: BenchReport, width: float, height: float) -> Figure:
    """Return the speedup with its interval against batch size, with the ratio of the multiply-accumulates as a dashed line.

    Args:
        report: At least one point with a speedup.
        width, height: Inches.
    """
    figure, axes = canvas(width, height, PURPOSE)
    sizes = sorted({point.batch for point in report.points})
    axes.axhline(1, color="#666666", linewidth=1)
    labels: dict[str, Label] = {}
    lines = []
    for index, subject in enumerate(report.subjects):
        points = [point for point in report.of(subject.label) if point.speedup]
        if not points:
            continue
        style = _style(index)
        ratios = [point.speedup.ratio for point in points if point.speedup]
        axes.errorbar(
            [sizes.index(point.batch) for point in points],
            ratios,
            yerr=[[_down(point) for point in points], [_up(point) for point in points]],
            label=literal(subject.label),
            **style,
        )
        macs, against = subject.facts.macs, points[0].speedup and report.subject(points[0].speedup.against).facts.macs
        if macs and against:
            axes.axhline(against / macs, color=style["color"], linewidth=1, linestyle="--")
            text = f"MAC ratio {against / macs:.2f}"  # once, if several models have the same
            labels.setdefault(text, (text, [(i, against / macs) for i in range(len(sizes))], style["color"]))
        ups = [(_down(point), _up(point)) for point in points]
        at = [(sizes.index(point.batch), ratio) for point, ratio in zip(points, ratios)]
        lines.append(np.array(at, float))
        lines += [np.array([(x, y - down), (x, y + up)]) for (x, y), (down, up) in zip(at, ups)]
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.plot([-0.4, len(sizes) - 0.6], [1, 1], alpha=0)  # room at both sides
    axes.set_xlabel("batch size")
    axes.set_ylabel("speedup over the baseline")
    _finish(figure, axes)
    place(figure, axes, labels.values(), lines)
    return figure


def literal(text: str) -> str:
    """Return text as matplotlib shows it as it is: a name with two dollars would be read as a formula."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG, twice as fine as a plain screen."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=144, metadata={"Software": mark("bench")})
    return data.getvalue()


def _values(row: Quantity, report: BenchReport, points: Sequence[Point]) -> list[float]:
    return [value for point in points if (value := row.value(report, point)) is not None]


def _down(point: Point) -> float:
    found = point.speedup
    return 0.0 if found is None or found.low is None else max(0.0, found.ratio - found.low)


def _up(point: Point) -> float:
    found = point.speedup
    return 0.0 if found is None or found.high is None else max(0.0, found.high - found.ratio)


def canvas(width: float, height: float, purpose: str) -> tuple[Figure, Axes]:
    """Return an empty plot that no window shows.

    Args:
        width, height: Inches.
        purpose: What it is for, said where matplotlib is missing.

    Raises:
        EngineError: matplotlib is missing; names the extra to install.
    """
    require("report", purpose, "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _style(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 6,
        "capsize": 3,
        "linewidth": 1.5,
    }


def _logarithmic(set_scale: Any, axis: Any, values: list[float], room: float) -> None:
    """A logarithmic scale, its ticks written out; at 1, 2 and 5 times a power of ten where these fit into ``room`` inches."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) <= 0:
        return
    set_scale("log")
    dense = math.log10(max(values) / min(values)) < 0.35 * room
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if dense else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def tidy(axes: Axes) -> None:
    """Draw a light grid behind what is plotted, no frame, and room around it."""
    axes.grid(True, which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(x=0.1, y=0.12)


def _finish(figure: Figure, axes: Axes) -> None:
    tidy(axes)
    # Below the plot: names are long, and beside it they would leave no room on a narrow screen.
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, ncols=1)

"""Speed against accuracy as an SVG picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..bench.labels import Label, place
from ..bench.plots import canvas, literal, tidy
from ..storage.ownership import mark
from .front import Outcome, front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PURPOSE", "draw", "plot"]

PURPOSE = "the plot of a sweep"
SIZE = (7.6, 4.6)  # inches
FRONT, OTHERS = "#0067c0", "#8a8c94"


def plot(outcomes: Sequence[Outcome], title: str) -> str:
    """Return :func:`draw` as an SVG, the same for the same outcomes; its text is text.

    Args:
        outcomes: Of one sweep.
        title: Above the picture: model, backend, data.

    Raises:
        EngineError: matplotlib is missing.
    """
    figure, data = draw(outcomes, title), io.BytesIO()
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(data, format="svg", metadata={"Creator": mark("sweep"), "Date": None, "Title": title})
    return data.getvalue().decode()


def draw(outcomes: Sequence[Outcome], title: str) -> Figure:
    """Return every outcome as a dot with its intervals, the front as a line."""
    figure, axes = canvas(*SIZE, PURPOSE)
    best, labelled = front(outcomes), all(one.top1 is not None for one in outcomes)
    labels: list[Label] = []
    lines = [np.array([_at(one) for one in best])]
    axes.plot(*lines[0].T, color=FRONT, linewidth=2)
    for one in outcomes:
        (x, y), colour = _at(one), FRONT if one in best else OTHERS
        intervals = []
        if one.top1_low is not None and one.top1_high is not None:
            intervals.append(np.array([(x, 100 * one.top1_low), (x, 100 * one.top1_high)]))
        if one.speedup_low is not None and one.speedup_high is not None:
            intervals.append(np.array([(one.speedup_low, y), (one.speedup_high, y)]))
        for interval in intervals:
            axes.plot(*interval.T, color=colour, alpha=0.45, linewidth=1)
        axes.plot([x], [y], "o", color=colour, markersize=6, gid=f"dot {one.name}")
        labels.append((literal(one.name), [(x, y)], "#3b3d44"))
        lines += intervals
    axes.set_title(literal(title), loc="left", fontsize=11)
    axes.set_xlabel("speedup against the full model")
    axes.set_ylabel("top-1 accuracy, %" if labelled else "agreement with the full model, %")
    tidy(axes)
    place(figure, axes, labels, [*lines, np.array([_at(one) for one in outcomes])])
    return figure


def _at(one: Outcome) -> tuple[float, float]:
    return one.speedup, 100 * (one.agreement if one.top1 is None else one.top1)

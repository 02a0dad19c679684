"""Speed against accuracy as an SVG picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..bench.labels import Label, place
from ..bench.plots import canvas, literal, tidy
from ..storage.ownership import mark
from .front import FULL, Outcome, front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PURPOSE", "Axis", "draw", "plot"]

PURPOSE = "the plot of a sweep"
SIZE = (7.6, 4.6)  # inches
METHODS = ("#0067c0", "#b3541e", "#2a7d4f", "#7a4fb5")  # the front of each; the first where there is one
OTHERS = "#8a8c94"
Axis = Literal["speedup", "macs"]


def plot(outcomes: Sequence[Outcome], title: str, axis: Axis = "speedup") -> str:
    """Return :func:`draw` as an SVG, the same for the same outcomes; its text is text.

    Args:
        outcomes: Of one sweep.
        title: Above the picture: model, backend, data.
        axis: See :func:`draw`.

    Raises:
        EngineError: matplotlib is missing.
    """
    figure, data = draw(outcomes, title, axis), io.BytesIO()
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(data, format="svg", metadata={"Creator": mark("sweep"), "Date": None, "Title": title})
    return data.getvalue().decode()


def draw(outcomes: Sequence[Outcome], title: str, axis: Axis = "speedup") -> Figure:
    """Return every outcome as a dot with its intervals, the front as a line; of several methods, the front of each.

    Args:
        outcomes: Of one sweep.
        title: Above the picture.
        axis: ``speedup`` as measured, or ``macs``: the full model's multiply-accumulates over the candidate's, which no other
            process on the machine disturbs. Where they were not counted, the speedup is shown.
    """
    figure, axes = canvas(*SIZE, PURPOSE)
    counted = axis == "macs" and all(one.macs and one.full_macs for one in outcomes)

    def gain(one: Outcome) -> float:
        return one.full_macs / one.macs if counted and one.macs and one.full_macs else one.speedup

    def at(one: Outcome) -> tuple[float, float]:
        return gain(one), 100 * (one.agreement if one.top1 is None else one.top1)

    methods = list(dict.fromkeys(one.method for one in outcomes if one.name != FULL)) or [""]
    labelled = all(one.top1 is not None for one in outcomes)
    labels: list[Label] = []
    lines, colours = [], dict[str, str]()
    for number, method in enumerate(methods):
        best = front([one for one in outcomes if one.name == FULL or one.method == method], gain)
        colour = METHODS[number % len(METHODS)]
        colours |= (
            {one.key: colour for one in best}
            if len(methods) == 1
            else {one.key: colour for one in outcomes if one.method == method and one.name != FULL}
        )
        lines.append(np.array([at(one) for one in best]))
        axes.plot(*lines[-1].T, color=colour, linewidth=2, label=method or None)
    for one in outcomes:
        (x, y), colour = at(one), colours.get(one.key, OTHERS)
        intervals = []
        if one.top1_low is not None and one.top1_high is not None:
            intervals.append(np.array([(x, 100 * one.top1_low), (x, 100 * one.top1_high)]))
        if not counted and one.speedup_low is not None and one.speedup_high is not None:
            intervals.append(np.array([(one.speedup_low, y), (one.speedup_high, y)]))
        for interval in intervals:
            axes.plot(*interval.T, color=colour, alpha=0.45, linewidth=1)
        axes.plot([x], [y], "o", color=colour, markersize=6, gid=f"dot {one.name}")
        text = one.name if len(methods) == 1 else _short(one)
        labels.append((literal(text), [(x, y)], "#3b3d44"))
        lines += intervals
    axes.set_title(literal(title), loc="left", fontsize=11)
    axes.set_xlabel(
        "the full model's multiply-accumulates over the candidate's" if counted else "speedup against the full model"
    )
    axes.set_ylabel("top-1 accuracy, %" if labelled else "agreement with the full model, %")
    tidy(axes)
    if len(methods) > 1:
        axes.legend(frameon=False, loc="lower left")
    place(figure, axes, labels, [*lines, np.array([at(one) for one in outcomes])])
    return figure


def _short(one: Outcome) -> str:
    """What to call a candidate where its colour says the method: ``0.5`` of the same ratio everywhere, ``r 4``."""
    kind, *amounts = one.name.removeprefix(f"{one.method}_").split("_")
    if one.name == FULL or len(set(amounts)) != 1:
        return one.name
    return amounts[0] if kind in ("stage", "layer") else f"{kind} {amounts[0]}"

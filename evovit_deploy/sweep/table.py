"""Outcomes of a sweep as a table, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..bench.text import Table
from .front import Outcome, front

__all__ = ["table"]


def table(outcomes: Sequence[Outcome], title: str) -> Table:
    """A row for each candidate, in the order given; the accuracy column only with labels.

    Args:
        outcomes: Of one sweep.
        title: Model, precision, batch, data.
    """
    best = front(outcomes)
    labelled = outcomes[0].top1 is not None
    top1 = ["top-1 % [95% interval]"] if labelled else []
    rows = []
    for one in outcomes:
        interval = "" if one.speedup_low is None else f" [{one.speedup_low:.2f}, {one.speedup_high:.2f}]"
        accuracy = []
        if one.top1 is not None and one.top1_low is not None and one.top1_high is not None:
            accuracy = [f"{100 * one.top1:.2f} [{100 * one.top1_low:.1f}, {100 * one.top1_high:.1f}]"]
        rows.append(
            (
                one.name,
                f"{one.latency_ms:.3g}",
                f"{one.speedup:.2f}{interval}",
                *accuracy,
                f"{100 * one.agreement:.2f}",
                f"{one.drop:.2f}",
                "yes" if one.stable else "no",
                "yes" if one in best else "",
            )
        )
    header = ("candidate", "p50 ms", "speedup", *top1, "agrees %", "drop", "stable", "front")
    return Table(title, header, tuple(rows), group=None)

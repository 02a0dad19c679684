"""Outcomes of a sweep as a table, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..bench.text import Table
from .front import Outcome, front

__all__ = ["table"]


def table(outcomes: Sequence[Outcome], title: str) -> Table:
    """Return a row for each candidate, in the order given; the accuracy column only with labels.

    Multiply-accumulates are in percent of the full model's, where they were counted; a sweep of several methods names them.
    Each latency stands beside that of the full model in the same turns, as rows come from different minutes; where a record has
    no such pair there are no latencies at all.

    Args:
        outcomes: Of one sweep.
        title: Model, precision, batch, data.
    """
    best = front(outcomes)
    labelled = outcomes[0].top1 is not None
    paired = all(one.full_ms is not None for one in outcomes)
    counted = all(one.macs and one.full_macs for one in outcomes)
    several = len({one.method for one in outcomes}) > 1
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
                *((one.method if one.name != "full" else "",) if several else ()),
                *((f"{100 * one.macs / one.full_macs:.1f}",) if counted and one.macs and one.full_macs else ()),
                *((_ms(one.latency_ms), _ms(one.full_ms)) if paired and one.full_ms is not None else ()),
                f"{one.speedup:.2f}{interval}",
                *accuracy,
                f"{100 * one.agreement:.2f}",
                f"{one.drop:.2f}",
                "yes" if one.stable else "no",
                "yes" if one in best else "",
            )
        )
    times = ["p50 ms", "full beside it, ms"] if paired else []
    header = (
        "candidate",
        *(["method"] if several else []),
        *(["MACs %"] if counted else []),
        *times,
        "speedup",
        *top1,
        "agrees %",
        "drop",
        "stable",
        "front",
    )
    return Table(title, header, tuple(rows), group=None)


def _ms(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}"

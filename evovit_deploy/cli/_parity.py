"""How a parity report is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ..export import ParityReport

__all__ = ["parity_table"]


def parity_table(report: ParityReport, title: str) -> Table:
    """Return a table of what was measured, what is accepted, and whether it holds."""
    from rich.markup import escape
    from rich.table import Table

    t = report.tolerance
    table = Table(title=f"{escape(title)}, {report.images} images", title_justify="left")
    for column in ("measure", "found", "accepted", ""):
        table.add_column(column, justify="left" if column in ("measure", "") else "right")
    limit = t.max_abs * report.scale
    rows = [
        ("largest logit error", f"{report.max_abs:.3g}", f"<= {limit:.3g}", report.max_abs <= limit),
        ("mean logit error", f"{report.mean_abs:.3g}", "", True),
        ("smallest cosine", f"{report.cosine:.7f}", f">= {t.min_cosine}", report.cosine >= t.min_cosine),
        ("top-1 agreement", f"{report.top1:.1%}", f">= {t.min_top1:.1%}", report.top1 >= t.min_top1),
    ]
    for stage, value in report.jaccard.items():
        rows.append((f"{stage}: same tokens (Jaccard)", f"{value:.4f}", f">= {t.min_jaccard}", value >= t.min_jaccard))
    for name, found, accepted, ok in rows:
        table.add_row(name, found, accepted, "[green]ok[/]" if ok else "[red]FAILED[/]")
    return table

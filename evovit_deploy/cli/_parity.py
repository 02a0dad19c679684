"""How a parity report is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ..export import ParityReport

__all__ = ["parity_table"]


def parity_table(report: ParityReport, title: str) -> Table:
    """Return a table of every gate: what was found, what is accepted, whether it holds, and where it was worst."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{escape(title)}, {len(report.names)} image{'' if len(report.names) == 1 else 's'}", title_justify="left"
    )
    for column in ("gate", "found", "accepted", "", "worst at"):
        table.add_column(column, justify="right" if column in ("found", "accepted") else "left")
    for gate in report.gates:
        if gate.name in ("error", "top1") or gate.name.endswith(("_cut", "_error")):
            found, limit = f"{100 * gate.found:.3g}%", f"{100 * gate.limit:g}%"
        else:
            found, limit = f"{gate.found:.{7 if gate.name.endswith('cosine') else 4}g}", f"{gate.limit:.5g}"
        sign = ">=" if gate.at_least else "<="
        verdict = "[green]ok[/]" if gate.passed else "[red]FAILED[/]"
        table.add_row(gate.what, found, f"{sign} {limit}", verdict, Text(gate.where))
    return table

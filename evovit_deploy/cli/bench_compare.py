"""`evovit bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._bench import wide
from ._console import err, print_json

__all__ = ["bench_compare"]


def bench_compare(
    before: Annotated[Path, typer.Argument(help="Record file of the older state.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="Record file of the newer state.", metavar="AFTER")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Percent that a value may get worse without being called so.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Find regressions between two records; exits 1 if anything became slower."""
    from rich.table import Table
    from rich.text import Text

    from ..bench.comparison import compare, different_machines
    from ..bench.reading import read_records

    old, new = read_records(before), read_records(after)
    changes = compare(old, new, tolerance / 100)
    other = different_machines(old, new)
    slower = [change for change in changes if change.verdict == "slower"]
    if json:
        print_json({"changes": [vars(c) for c in changes], "regressions": len(slower), "differences": other})
    else:
        table = Table()
        for name in ("model", "batch", "quantity", "before", "after", "change", "verdict"):
            table.add_column(name, justify="left" if name in ("model", "quantity", "verdict") else "right")
        for c in changes:
            change = f"{100 * (c.after / c.before - 1):+.1f}%"
            unit = " ms" if c.quantity == "latency" else ""
            values = (f"{c.before:.3f}{unit}", f"{c.after:.3f}{unit}", change)
            table.add_row(Text(c.subject), str(c.batch), c.quantity, *values, c.verdict)
        wide().print(table)
        for difference in other:
            err().print(f"note: measured differently: {difference}", soft_wrap=True, markup=False)
    if slower:
        rows = ", ".join(f"{c.quantity} of {c.subject} at batch {c.batch}" for c in slower)
        err().print(f"slower by more than {tolerance:g} %: {rows}", soft_wrap=True, markup=False)
        raise typer.Exit(1)

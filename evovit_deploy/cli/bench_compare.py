"""`evovit bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _options as shared
from ._bench import print_lines, print_table
from ._console import err, print_json

if TYPE_CHECKING:
    from ..bench.comparison import Change

__all__ = ["bench_compare"]


def bench_compare(
    before: Annotated[Path, typer.Argument(help="Record file of the older state.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="Record file of the newer state.", metavar="AFTER")],
    tolerance: Annotated[float, typer.Option(min=0, metavar="PERCENT", help="How much worse a value may get.")] = 5.0,
    json: shared.Json = False,
) -> None:
    """Find regressions between two records; exit 1 if anything became slower.

    A model that was measured beside its baseline is judged by its speedup: on a slower machine both become slower, and
    that is no regression.

    Examples:
      evovit bench compare before.jsonl after.jsonl
      evovit bench compare before.jsonl after.jsonl --tolerance 2
    """
    from ..bench.comparison import change_table, compare, different_machines
    from ..bench.reading import read_records

    old, new = read_records(before), read_records(after)
    changes = compare(old, new, tolerance / 100)
    other = different_machines(old, new)
    slower = [change for change in changes if change.verdict == "slower"]
    if json:
        print_json({"changes": [vars(c) for c in changes], "regressions": len(slower), "differences": other})
    else:
        print_lines([_answer(changes)], style="bold")
        print_table(change_table(changes))
    for difference in other:
        err().print(f"note: measured differently: {difference}", soft_wrap=True, markup=False)
    if any(c.verdict == "alike" for c in changes):
        err().print("note: alike: the baseline beside it moved the same way, so its speedup judges", soft_wrap=True)
    unstable = [f"{c.quantity} of {c.subject} at batch {c.batch}" for c in changes if not c.stable]
    if unstable:
        err().print(
            f"warning: did not settle, before or after, so trust no small change: {', '.join(unstable)}",
            soft_wrap=True,
            markup=False,
        )
    if slower:
        rows = ", ".join(f"{c.quantity} of {c.subject} at batch {c.batch}" for c in slower)
        err().print(f"slower by more than {tolerance:g} %: {rows}", soft_wrap=True, markup=False)
        raise typer.Exit(1)


def _answer(changes: list[Change]) -> str:
    """What became of it, in a line."""
    judged = [c for c in changes if c.verdict not in ("alike", "baseline")]
    counts = {verdict: sum(c.verdict == verdict for c in judged) for verdict in ("slower", "faster", "same")}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"{'regression' if counts['slower'] else 'no regression'}: of {len(judged)} compared, {said}"

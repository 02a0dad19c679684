"""`evovit bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._bench import duration, print_report, print_summary
from ._choices import Force
from ._console import err, print_json

__all__ = ["bench_report"]


def bench_report(
    records: Annotated[
        list[Path] | None, typer.Argument(help="Record files; default: those in bench/results.", metavar="[RECORDS]...")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Page to write, X.html; its plots land beside it as PNG files."),
    ] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Write the tables between the markers of this Markdown file.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="The batch to pick for a latency, e.g. 5ms or 0.1s.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Only the last record of each file.")] = False,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tables, plots and a page of what was recorded."""
    from ..bench.answers import answers
    from ..bench.markdown import update
    from ..bench.reading import find_records, read_records
    from ..bench.save import check_output, save_page

    budget_ms = None if budget is None else duration(budget)
    if output is not None:
        check_output(output, force=force)
    found = [read_records(path) for path in find_records(records or [])]
    reports = [report for reports in found for report in (reports[-1:] if last else reports)]
    written = []
    if output is not None:
        written += save_page(output, reports, budget_ms, force=force)
    if readme is not None:
        update(readme, reports)
        written.append(readme)
    if json:
        runs = [{**r.to_dict(), "answers": [vars(a) for a in answers(r, budget_ms)]} for r in reports]
        print_json({"runs": runs, "written": [str(path) for path in written]})
        return
    if not written:
        print_summary(reports)
        for report in reports:
            print_report(report, budget_ms)
    for path in written:
        err().print(f"wrote {path}", soft_wrap=True, markup=False)

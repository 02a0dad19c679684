"""`evovit bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _options as shared
from ._bench import print_report, print_summary
from ._console import err, print_json
from ._values import duration

__all__ = ["bench_report"]


def bench_report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(help="Record files. Default: those in bench/results.", metavar="RECORDS"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER|FILE",
            help="Folder, or HTML file, to write the page to; its plots go beside it as PNG files.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Markdown file whose tables between the markers are replaced.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Pick the batch for a latency such as 5ms or 0.1s.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Use only the last record of each file.")] = False,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Show records as tables, or write them as a page with plots.

    Examples:
      evovit bench report runs.jsonl
      evovit bench report runs.jsonl --last -o report
    """
    from ..bench.answers import answers
    from ..bench.markdown import update
    from ..bench.reading import find_records, read_records
    from ..bench.save import check_output, save_page

    budget_ms = None if budget is None else duration("--budget", budget, "5ms")
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

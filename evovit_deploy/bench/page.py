"""Reports as one HTML page that asks for nothing: styles and plots are inside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ..storage.ownership import mark
from .answers import FIRST, answers
from .markdown import title
from .plots import latency_plot, png, speedup_plot
from .report import BenchReport
from .summary import summary
from .text import Table, lines, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

Plot = Callable[[BenchReport, float, float], "Figure"]

WIDE, NARROW = (6.4, 4.4), (4.2, 4.4)  # inches
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.5rem; margin: .5rem 0 1rem; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #ccc; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; border-bottom: 2px solid #999; }
th.left, td.left { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
tr.group td { border-top: 2px solid #999; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 30rem; min-width: 0; }
img { display: block; width: 100%; height: auto; max-width: 44rem; }
figcaption { color: #555; font-size: .9rem; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
li { overflow-wrap: anywhere; }
.notes { color: #444; font-size: .9rem; }
code { overflow-wrap: anywhere; }
figcaption { overflow-wrap: anywhere; }
.first { margin: .5rem 0; font-weight: 600; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding: .75rem; }
  table, tbody, td { display: block; }
  thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: .4rem 0; border-top: 1px solid #ccc; }
  tr.group { border-top: 2px solid #999; }
  tr.group td { border: 0; }
  td, td.left { padding: 0; border: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  td.name { flex-basis: 100%; order: -1; font-weight: 600; }
  td:empty { display: none; }
  td::before { content: attr(data-name) " "; color: #555; font-weight: 400; }
}
"""


def page(reports: Sequence[BenchReport], budget_ms: float | None = None) -> str:
    """Return one HTML document.

    Args:
        reports: In the order they are shown.
        budget_ms: As for :func:`.answers.answers`.
    """
    overview = summary(reports)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="generator" content="{mark("bench")}">',
        '<link rel="icon" href="data:,">',  # else a browser asks for one
        f"<title>evovit bench</title><style>{STYLE}</style></head><body>",
        "<h1>evovit bench</h1>",
        *([_table(overview)] if len(reports) > 1 and overview is not None else []),
        *(_section(report, budget_ms) for report in reports),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _section(report: BenchReport, budget_ms: float | None) -> str:
    parts = [f"<section><h2>{escape(title(report))}</h2>"]
    found = answers(report, budget_ms)
    parts += [f'<p class="first">{escape(answer.text)}</p>' for answer in found if answer.question in FIRST]
    said = [answer for answer in found if answer.question not in FIRST]
    if said:
        parts.append('<ul class="answers">' + "".join(f"<li>{escape(a.text)}</li>" for a in said) + "</ul>")
    plots = []
    if report.points:
        caption = "Latency against throughput; the number at each mark is the batch size."
        plots.append(_picture(latency_plot, report, caption))
    if any(point.speedup for point in report.points):
        caption = (
            f"Speedup over {report.baseline} against batch size, with its 95% interval; dashed: the ratio of "
            f"multiply-accumulates."
        )
        plots.append(_picture(speedup_plot, report, caption))
    parts.append(f'<div class="plots">{"".join(plots)}</div>')
    parts += [_table(table) for table in tables(report)]
    notes = [escape(line) for line in lines(report)]
    if report.command:
        notes.append(f"command: <code>{escape(report.command)}</code>")
    parts.append('<ul class="notes">' + "".join(f"<li>{note}</li>" for note in notes) + "</ul></section>")
    return "\n".join(parts)


def _picture(plot: Plot, report: BenchReport, caption: str) -> str:
    """A plot drawn twice: a picture made for a wide window has letters too small for a narrow one."""
    wide, narrow = (_data(png(plot(report, *size))) for size in (WIDE, NARROW))
    return (
        f'<figure><picture><source media="(max-width: 40rem)" srcset="{narrow}"><img src="{wide}" '
        f'alt="{escape(caption, quote=True)}"></picture><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _data(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _table(table: Table) -> str:
    kinds = ["left name" if name == "model" else "left" if name in table.left else "" for name in table.header]

    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in zip(table.header, kinds))
    rows = []
    for above, row in zip([None, *table.rows], table.rows):
        group = ' class="group"' if table.divides(above, row) else ""
        cells = (
            f'<td class="{kind}" data-name="{escape(name, quote=True)}">{escape(cell)}</td>'
            for cell, kind, name in zip(row, kinds, table.header)
        )
        rows.append(f"<tr{group}>{''.join(cells)}</tr>")
    return (
        f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

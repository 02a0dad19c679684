"""What the commands of `evovit bench` share: reading options, the progress bar, printing a report."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ._console import out, progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from ..bench import BenchReport
    from ..bench.text import Table

__all__ = [
    "command_line",
    "measuring",
    "print_lines",
    "print_report",
    "print_summary",
    "print_table",
    "wide",
]

REFRESH_SECONDS = 0.5


def command_line() -> str:
    """Say what was typed, with file names in place of paths: a record names no folder of the machine it was made on."""
    words = []
    for word in sys.argv[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + (Path(value).name if "/" in value or "\\" in value else value))
    return " ".join(["evovit", *words])


@contextmanager
def measuring() -> Iterator[Callable[[float, str], None]]:
    """Yield a progress bar that is drawn between measured calls only: a drawing thread would disturb what is measured."""
    bar = progress()
    bar.live.auto_refresh = False
    task = bar.add_task("opening", total=100)
    last = 0.0

    def update(share: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REFRESH_SECONDS or share >= 1:
            bar.update(task, completed=100 * share, description=text)
            bar.refresh()
            last = now

    with bar:
        yield update


def wide() -> Console:
    """Return a console for results; a log or a pipe has no edge to wrap at."""
    console = out()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def print_report(report: BenchReport, budget_ms: float | None) -> None:
    """Print the answer, the tables, what else they mean, and last where and how they were measured."""
    from ..bench.answers import FIRST, answers
    from ..bench.text import lines, tables

    console, found = wide(), answers(report, budget_ms)
    first = [answer.text for answer in found if answer.question in FIRST]
    print_lines(first, style="bold")
    if first:
        console.print()
    for table in tables(report):
        print_table(table)
    smallest = min((point.batch for point in report.points), default=1)
    rest = [answer for answer in found if answer.question not in FIRST]
    # Faster everywhere or nowhere is what the first line says already.
    rest = [answer for answer in rest if answer.question != "break_even" or (answer.value or 0) > smallest]
    print_lines(f"-> {answer.text}" for answer in rest)
    if rest:
        console.print()
    print_lines(lines(report))


def print_summary(reports: list[BenchReport]) -> None:
    """Print one table of several runs; nothing for one."""
    from ..bench.summary import summary

    found = summary(reports) if len(reports) > 1 else None
    if found is not None:
        print_table(found)


def print_lines(texts: Iterable[str], style: str = "") -> None:
    """Print lines of results: broken between words in a terminal, whole in a log or pipe."""
    from rich.text import Text

    console = wide()
    for text in texts:
        console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def print_table(found: Table) -> None:
    """Print a table with its lines; in a terminal that is too narrow for it, row by row, a value beside each name."""
    from rich.measure import Measurement
    from rich.text import Text

    console, table = wide(), _rich_table(found)
    natural = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    if not console.is_terminal:
        console.width = max(console.width, natural)
    if natural <= console.width:
        console.print(table)
        return
    console.print(Text(found.title, style="italic"))
    for head, rest in _rows(found, console.width):
        console.print(Text(head, style="bold"), soft_wrap=True)
        for line in rest.splitlines():
            console.print(Text(line), soft_wrap=True)


def _rows(found: Table, width: int) -> Iterator[tuple[str, str]]:
    """Each row as what it is about, and its values in lines of at most ``width``, a name and its value never apart."""
    heads = next((number for number, name in enumerate(found.header) if name in found.left), 0)
    for row in found.rows:
        head = [f"{name} {value}" for name, value in zip(found.header[:heads], row)] + [row[heads]]
        pairs = [f"{name} {value}" for name, value in zip(found.header[heads + 1 :], row[heads + 1 :]) if value]
        joined = "  ".join(pair.replace(" ", "\N{NO-BREAK SPACE}") for pair in pairs)
        filled = textwrap.fill(
            joined, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        yield ", ".join(head), filled.replace("\N{NO-BREAK SPACE}", " ")


def _rich_table(found: Table) -> RichTable:
    """A table as the terminal shows it, with a line wherever its ``group`` changes."""
    from rich.markup import escape
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(title=escape(found.title), title_justify="left")
    for name in found.header:
        table.add_column(name, justify="left" if name in found.left else "right", no_wrap=True, overflow="fold")
    for above, row in zip([None, *found.rows], found.rows):
        if found.divides(above, row):
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))  # not markup: a file name may hold brackets
    return table

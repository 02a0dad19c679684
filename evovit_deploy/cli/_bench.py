"""What the commands of `evovit bench` share: reading options, the progress bar, printing a report."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ._console import out, progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from ..bench import BenchReport
    from ..bench.text import Table

__all__ = ["command_line", "duration", "measuring", "numbers", "print_report", "print_summary", "rich_table", "wide"]

REFRESH_SECONDS = 0.5


def numbers(option: str, text: str) -> tuple[int, ...]:
    """``1,8,32`` as numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"{option} {text!r} is not a list of numbers from 1; for example: {option} 1,8,32")
    return tuple(dict.fromkeys(int(part) for part in parts))


def duration(text: str) -> float:
    """``5ms``, ``0.1s`` or a number of milliseconds, in milliseconds."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s)?\s*", text)
    if not found or not float(found[1]):
        raise InputError(f"--budget {text!r} is not a time; for example: --budget 5ms")
    return float(found[1]) * (1000 if found[2] == "s" else 1)


def command_line() -> str:
    """What was typed, with file names in place of paths: a record names no folder of the machine it was made on."""
    words = []
    for word in sys.argv[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + (Path(value).name if "/" in value or "\\" in value else value))
    return " ".join(["evovit", *words])


@contextmanager
def measuring() -> Iterator[Callable[[float, str], None]]:
    """A progress bar that is drawn between measured calls only: a drawing thread would disturb what is measured."""
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
    """Console for results; a log or a pipe has no edge to wrap at."""
    console = out()
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def print_report(report: BenchReport, budget_ms: float | None) -> None:
    """Tables, what belongs below them, and what they mean."""
    from ..bench.answers import answers
    from ..bench.text import lines, tables

    console = wide()
    for table in tables(report):
        console.print(rich_table(table))
    for line in lines(report):
        console.print(line, soft_wrap=True, markup=False)
    for answer in answers(report, budget_ms):
        console.print(f"-> {answer.text}", soft_wrap=True, markup=False)


def print_summary(reports: list[BenchReport]) -> None:
    """One table of several runs; nothing for one."""
    from ..bench.summary import summary

    found = summary(reports) if len(reports) > 1 else None
    if found is not None:
        wide().print(rich_table(found))


def rich_table(found: Table) -> RichTable:
    """A table as the terminal shows it, with a line wherever its ``group`` changes."""
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(title=found.title, title_justify="left")
    for name in found.header:
        table.add_column(name, justify="left" if name in found.left else "right", no_wrap=True, overflow="fold")
    for above, row in zip([None, *found.rows], found.rows):
        if found.divides(above, row):
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))  # not markup: a file name may hold brackets
    return table

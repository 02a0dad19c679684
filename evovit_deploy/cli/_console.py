"""Where the command line writes: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

__all__ = ["err", "out", "print_json", "progress"]


def out() -> Console:
    """Console for results."""
    from rich.console import Console

    return Console(soft_wrap=False, highlight=False)


def err() -> Console:
    """Console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def progress() -> Progress:
    """A progress bar on stderr that disappears when done, and says nothing when stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Count(TextColumn):
        """Shows "done/total", and nothing while there is no total to count up to."""

        def render(self, task: Task) -> Text:
            return Text() if task.total is None else Text(f"{task.completed:.0f}/{task.total:.0f}")

    console = err()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        Count(""),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # results go where they were sent
        disable=not console.is_terminal,
    )

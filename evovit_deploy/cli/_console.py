"""Where the command line writes: results on stdout, everything else on stderr; and what a terminal may be told.

Everything printed goes through the consoles made here. Text from elsewhere (file names, labels, metadata) is shown on one
line with its control characters escaped, and what the encoding of the stream lacks as an escape too, before tables are laid
out. So no caller has to think of either.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from ..storage.files import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress, Task
    from rich.segment import Segment
    from rich.text import Text

__all__ = ["err", "fail", "note", "out", "print_json", "progress", "waiting", "warn"]

# One column each, so that a table that is laid out already keeps its shape where the stream cannot show them.
PLAINER = str.maketrans({"—": "-", "–": "-", "…": "~", "°": " ", "×": "x", "→": ">", "·": "."})


def out() -> Console:
    """Return a console for results."""
    return _console_type()(soft_wrap=False, highlight=False, emoji=False)


def err() -> Console:
    """Return a console for progress, notes and errors."""
    return _console_type()(stderr=True, highlight=False, emoji=False)


def fail(text: str, kind: str = "error") -> None:
    """Print an error as one paragraph on stderr."""
    from rich.text import Text

    paragraph, console = " ".join(plain(part) for line in text.splitlines() if (part := line.strip())), err()
    console.print(Text.assemble((f"{kind}:", "bold red"), " ", paragraph), soft_wrap=not console.is_terminal)


def note(text: str, above: Progress | None = None) -> None:
    """Print a note on stderr, above a progress bar if there is one."""
    _say(f"note: {text}", "dim", above)


def warn(text: str, above: Progress | None = None) -> None:
    """Print a warning on stderr: the result may be wrong."""
    _say(f"warning: {text}", "yellow", above)


def _say(text: str, style: str, above: Progress | None) -> None:
    """Lines for people: broken between words in a terminal, whole in a log or a pipe."""
    console = err() if above is None else above.console
    console.print(text, markup=False, style=style, soft_wrap=not console.is_terminal)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, in ASCII; JSON has no word for NaN and infinity, so these become null."""
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), indent=2)
    sys.stdout.write(text + "\n")


def progress() -> Progress:
    """Return a progress bar on stderr that disappears when done, and says nothing where it could not be redrawn."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class Description(TextColumn):
        """Says what is going on; a name in it is no markup."""

        def render(self, task: Task) -> Text:
            return Text(plain(task.description))

    class Count(TextColumn):
        """Shows "done/total", and nothing while there is no total to count up to."""

        def render(self, task: Task) -> Text:
            return Text() if task.total is None else Text(f"{task.completed:.0f}/{task.total:.0f}")

    console = err()
    return Progress(
        SpinnerColumn(_spinner(console)),
        Description(""),
        BarColumn(),
        Count(""),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # results go where they were sent
        disable=not console.is_terminal or console.is_dumb_terminal,
    )


def waiting(text: str) -> AbstractContextManager[object]:
    """Return a spinner on stderr with ``text``, as :func:`progress` where nothing can be counted."""
    console = err()
    if not console.is_terminal or console.is_dumb_terminal:
        return nullcontext()
    return console.status(plain(text), spinner=_spinner(console))


def _spinner(console: Console) -> str:
    return "line" if console.options.ascii_only else "dots"


@cache
def _console_type() -> type[Console]:
    """The class of both consoles, made when it is first used: importing rich takes a while."""
    import rich.console
    from rich.table import Table
    from rich.text import Text

    class SafeConsole(rich.console.Console):
        def print(self, *objects: Any, **options: Any) -> None:
            """See rich; also cleans the cells of a table, which it measures before it renders them."""
            for found in objects:
                cells = (
                    [cell for c in found.columns for cell in (c.header, *c.cells)] if isinstance(found, Table) else []
                )
                for text in (found, getattr(found, "title", None), *cells):
                    if isinstance(text, Text):
                        text.plain = self._shown(text.plain)
            super().print(*objects, **options)

        def render_str(self, text: str, **options: Any) -> Text:
            """See rich; every string comes by here, also to be measured."""
            return super().render_str(self._shown(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            """See rich; the last place where text and the console's own control codes can be told apart."""
            for segment in super().render(renderable, options):
                if segment.control is None and not (segment.text.isascii() and segment.text.isprintable()):
                    lines = (self._shown(line) for line in segment.text.split("\n"))
                    segment = segment._replace(text="\n".join(lines))
                yield segment

        def _shown(self, text: str) -> str:
            text = plain(text)
            if not self.encoding.startswith("utf"):
                text = text.translate(PLAINER)
            return text.encode(self.encoding, "backslashreplace").decode(self.encoding, "replace")

    return SafeConsole


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

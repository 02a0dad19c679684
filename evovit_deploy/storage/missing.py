"""The error for an input that is not there: the same words and the same exit code wherever a path is taken."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TypeVar

from ..errors import EvoVitError
from ..suggest import did_you_mean
from .files import printable

__all__ = ["no_such_file"]

E = TypeVar("E", bound=EvoVitError)
USAGE = 2
_LOOKED_AT = 5000  # names of a folder that are compared; more would take longer than the answer is worth


def no_such_file(path: str | Path, error: type[E], fix: str = "", *, before: str = "", what: str = "file") -> E:
    """Make the error that a path does not exist; it holds near names, and exits 2 whatever its class exits with otherwise.

    Args:
        path: What was looked for.
        error: Class of the error, which a caller of the library expects.
        fix: What to do about it, a sentence.
        before: What took the path, such as an option.
        what: ``file``, or ``file or folder`` where both will do.
    """
    path = Path(path)
    said = f"{before + ' ' if before else ''}{printable(path)}: no such {what}.{_near(path)}{' ' + fix if fix else ''}"
    found = error(said)
    found.exit_code = USAGE
    return found


def _near(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        parent = path.parent
        if not parent.is_dir():
            return f" The folder {printable(parent)} does not exist."
        names = [entry.name for entry in itertools.islice(parent.iterdir(), _LOOKED_AT)]
        return did_you_mean(path.name, [name for name in names if name != path.name and not name.startswith(".")])
    return ""

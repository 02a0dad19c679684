"""Records: one line of JSON for each run, in a file that only ever grows."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..storage.files import check_writable
from ..storage.journal import append_line
from ..storage.ownership import check_replaceable, is_records

__all__ = ["append", "check_appendable"]


def check_appendable(path: Path, *, force: bool = False) -> None:
    """Raise OutputError now if :func:`append` could not write to ``path`` after minutes of measuring.

    Args:
        path: File of records.
        force: Append to it whatever it holds.
    """
    if not path.is_file():
        check_writable(path)
    elif not os.access(path, os.W_OK):
        raise OutputError(f"{path} is read-only. Make it writable (chmod u+w), or give --record another file.")
    check_replaceable({path: is_records}, force=force)


def append(path: Path, document: dict[str, Any], *, now: datetime | None = None) -> None:
    """Append ``document`` as one line: all of it or nothing, also when several processes append at once.

    Args:
        path: JSON Lines file; made if missing.
        document: JSON-ready, with its ``schema``.
        now: Time of the record; the current time by default. Stored in UTC as ``recorded``.

    Raises:
        OutputError: The file cannot be written, or the disk is full.
    """
    recorded = (now or datetime.now(timezone.utc)).astimezone(timezone.utc).isoformat(timespec="seconds")
    line = (json.dumps({"recorded": recorded, **document}, separators=(",", ":")) + "\n").encode()
    append_line(path, line)

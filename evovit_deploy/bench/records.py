"""Records: one line of JSON for each run, in a file that only ever grows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..storage.files import check_writable
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
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            with _locked(handle):
                _append(handle, line)
        finally:
            os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot append to {path}: {error.strerror or error}. Nothing was added.") from error


def _append(handle: int, line: bytes) -> None:
    size = os.lseek(handle, 0, os.SEEK_END)
    if size:
        os.lseek(handle, -1, os.SEEK_END)
        if os.read(handle, 1) != b"\n":  # edited by hand: do not join two records
            line = b"\n" + line
    try:
        written = os.write(handle, line)  # one write with O_APPEND: never interleaved with another's
        if written != len(line):
            raise OSError(28, "No space left on device")
    except OSError:
        os.ftruncate(handle, size)
        raise


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold a lock on the file where the system has one, so that taking back a failed line is safe."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)

"""The journal of a run: predictions on disk as they are made, so that an interrupted run goes on where it was.

JSON Lines, one line for every image in order, appended batch by batch, each in one write. A line that was cut short, and
whatever follows it, is taken back when the journal is opened: nothing is lost that was complete, and nothing counts twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError

__all__ = ["Journal", "Row"]

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """What came out for one image.

    Attributes:
        predictions: One a model: its most probable (class, probability), best first; empty if the image failed.
        error: Why there is no prediction, else None.
    """

    predictions: tuple[tuple[tuple[int, float], ...], ...] = ()
    error: str | None = None

    def to_line(self, number: int) -> bytes:
        """Return the JSON line of image ``number``."""
        row: dict[str, Any] = {"i": number}
        if self.error is None:
            row["p"] = self.predictions
        else:
            row["e"] = self.error
        return (json.dumps(row, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes, number: int) -> Row | None:
        """Read a line back; None if it is not the complete line of image ``number``."""
        try:
            row = json.loads(line)
            if not line.endswith(b"\n") or row["i"] != number:
                return None
            if "e" in row:
                return cls(error=str(row["e"]))
            return cls(tuple(tuple((int(c), float(p)) for c, p in ranking) for ranking in row["p"]))
        except (ValueError, LookupError, TypeError):
            return None


class Journal:
    """An open journal; close it, or use it in a ``with`` block.

    Args:
        path: Made with its folder if missing.
        key: What the rows belong to; a file with another key is emptied.
        fresh: Begin again, whatever is there.

    Attributes:
        count: Rows in it.

    Raises:
        OutputError: It cannot be written.
        InputError: Another process is writing it.
    """

    def __init__(self, path: Path, key: str, *, fresh: bool = False) -> None:
        self.path = path
        self._head = (json.dumps({"schema": SCHEMA, "key": key}) + "\n").encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise OutputError(
                f"cannot keep progress in {path}: {error.strerror or error}. Set EVOVIT_CACHE to a folder that you can write to."
            ) from error
        try:
            _lock(self._handle, path)
            end = 0 if fresh else self._valid()
            os.ftruncate(self._handle, end)
            if not end:
                self.count = 0
                self._write(self._head)
        except BaseException:
            os.close(self._handle)
            raise

    def _valid(self) -> int:
        """Bytes that are whole rows of this key; sets :attr:`count`."""
        self.count = 0
        with open(self.path, "rb") as stream:
            if stream.readline() != self._head:
                return 0
            end = stream.tell()
            for line in stream:
                if Row.from_line(line, self.count) is None:
                    break
                end += len(line)
                self.count += 1
        return end

    def append(self, rows: Iterable[Row]) -> None:
        """Add the rows of the next images.

        Raises:
            OutputError: The disk is full or gone; what was in the journal is still there.
        """
        rows = list(rows)
        self._write(b"".join(row.to_line(self.count + number) for number, row in enumerate(rows)))
        self.count += len(rows)

    def _write(self, data: bytes) -> None:
        try:
            os.lseek(self._handle, 0, os.SEEK_END)
            if os.write(self._handle, data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise OutputError(
                f"cannot keep progress in {self.path}: {error.strerror or error}. What was done so far is kept."
            ) from error

    def rows(self) -> Iterator[Row]:
        """Return all rows in order, read from the disk one at a time."""
        with open(self.path, "rb") as stream:
            stream.readline()
            for number in range(self.count):
                row = Row.from_line(stream.readline(), number)
                if row is None:
                    raise InputError(f"{self.path} was changed by another program. Run again with --restart.")
                yield row

    def close(self) -> None:
        """Close the file and leave it for the next run."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        """Close the file and remove it: everything it was for is done."""
        if os.name == "posix":  # while the lock is held, so that no other run gets between
            self.path.unlink(missing_ok=True)
            self.close()
        else:
            self.close()
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _lock(handle: int, path: Path) -> None:
    """Lock the file for this process, where the system can; the lock goes with the handle."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"another process is evaluating the same model on the same data (it holds {path}). Wait for it."
        ) from error
    except OSError:  # a file system without locks
        return

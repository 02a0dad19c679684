"""Lines of JSON on disk, whole or not at all: files that only grow, and journals from which an interrupted run goes on.

A journal has a line for every row in order, appended in one write. A line that was cut short, and whatever follows it, is
taken back when the journal is opened: nothing is lost that was complete, and nothing counts twice.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import InputError, OutputError

__all__ = ["Journal", "append_line", "lock"]

SCHEMA = 1
T = TypeVar("T")


class Journal(Generic[T]):
    """An open journal; close it, or use it in a ``with`` block.

    Args:
        path: Made with its folder if missing.
        key: What the rows belong to; a file with another key is emptied.
        to_line: JSON line of a row, from it and its number.
        from_line: Reads one back, given the number that it has to have; None if it is not that row, and whole.
        work: What another process that holds it does, for the message.
        fresh: Begin again, whatever is there.

    Attributes:
        count: Rows in it.

    Raises:
        OutputError: It cannot be written.
        InputError: Another process is writing it.
    """

    def __init__(
        self, path: Path, key: str, to_line: Callable[[T, int], bytes], from_line: Callable[[bytes, int], T | None], *,
        work: str, fresh: bool = False,
    ) -> None:  # fmt: skip
        self.path, self._to_line, self._from_line = path, to_line, from_line
        self._head = (json.dumps({"schema": SCHEMA, "key": key}) + "\n").encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise OutputError(
                f"cannot keep progress in {path}: {error.strerror or error}. Set EVOVIT_CACHE to a folder that you can write to."
            ) from error
        try:
            self._lock(work)
            end = 0 if fresh else self._valid()
            os.ftruncate(self._handle, end)
            if not end:
                self.count = 0
                self._write(self._head)
        except BaseException:
            os.close(self._handle)
            raise

    def _lock(self, work: str) -> None:
        try:
            lock(self._handle, wait=False)
        except BlockingIOError as error:
            raise InputError(f"another process is {work} (it holds {self.path}). Wait for it.") from error
        except OSError:  # a file system without locks
            return

    def _valid(self) -> int:
        """Bytes that are whole rows of this key; sets :attr:`count`."""
        self.count = 0
        with open(self.path, "rb") as stream:
            if stream.readline() != self._head:
                return 0
            end = stream.tell()
            for line in stream:
                if self._from_line(line, self.count) is None:
                    break
                end += len(line)
                self.count += 1
        return end

    def append(self, rows: Iterable[T]) -> None:
        """Add the rows of the next images.

        Raises:
            OutputError: The disk is full or gone; what was in the journal is still there.
        """
        rows = list(rows)
        self._write(b"".join(self._to_line(row, self.count + number) for number, row in enumerate(rows)))
        self.count += len(rows)

    def _write(self, data: bytes) -> None:
        try:
            os.lseek(self._handle, 0, os.SEEK_END)
            _write_whole(self._handle, data)
        except OSError as error:
            raise OutputError(
                f"cannot keep progress in {self.path}: {error.strerror or error}. What was done so far is kept."
            ) from error

    def rows(self) -> Iterator[T]:
        """Return all rows in order, read from the disk one at a time."""
        with open(self.path, "rb") as stream:
            stream.readline()
            for number in range(self.count):
                row = self._from_line(stream.readline(), number)
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

    def __enter__(self) -> Journal[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def append_line(path: Path, line: bytes) -> None:
    """Append a line: all of it or nothing, also when several processes append at once.

    Args:
        path: Made if missing.
        line: With its end.

    Raises:
        OutputError: The file cannot be written, or the disk is full.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            lock(handle)  # so that taking back a failed line is safe
            size = os.lseek(handle, 0, os.SEEK_END)
            if size:
                os.lseek(handle, -1, os.SEEK_END)
                if os.read(handle, 1) != b"\n":  # edited by hand: do not join two records
                    line = b"\n" + line
            try:
                _write_whole(handle, line)  # one write with O_APPEND: never interleaved with another's
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot append to {path}: {error.strerror or error}. Nothing was added.") from error


def lock(handle: int, *, wait: bool = True) -> None:
    """Lock an open file for this process, where the system can; the lock goes with the handle.

    Raises:
        BlockingIOError: Another process holds it, and ``wait`` is false.
        OSError: The file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _write_whole(handle: int, data: bytes) -> None:
    if os.write(handle, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

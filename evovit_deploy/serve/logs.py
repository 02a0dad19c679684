"""Logs that cannot stop the service: bounded lines, written by a thread, dropped and counted when nobody reads them."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from typing import Any, TextIO

from ..storage.files import plain

__all__ = ["BackgroundHandler", "PlainFormatter", "access", "dropped", "shown"]

LINES = 4096  # that may wait to be written
MAX_LINE = 1 << 14  # characters; a traceback is one line here
MAX_TEXT = 200  # characters of anything that a client sent
access_log = logging.getLogger("evovit.access")
_dropped = 0


def dropped() -> int:
    """Return how many lines this process did not write, since their reader was too slow or gone."""
    return _dropped


def shown(text: str) -> str:
    """Show what a client sent: in quotation marks, on one line, cut to a length."""
    return json.dumps(_cut(text))


def access(**fields: Any) -> None:
    """Write one structured line of the access log."""
    if access_log.isEnabledFor(logging.INFO):
        found = {name: _cut(value) if isinstance(value, str) else value for name, value in fields.items()}
        access_log.info("%s", json.dumps(found))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


class PlainFormatter(logging.Formatter):
    """Escapes control characters: what clients and files say shows up in a log, and must not command a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging; only the lines of a traceback stay apart."""
        return "\n".join(plain(line) for line in super().format(record).split("\n"))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See logging; the message, without its traceback, is one line."""
        return plain(super().formatMessage(record))


class BackgroundHandler(logging.Handler):
    """Writes lines to a stream in a separate thread; a stream that blocks costs lines, and nothing else.

    Args:
        stream: Such as ``sys.stderr``. Where it has a file descriptor, that is written to, so that no lock of the stream is held.
        lines: Lines that may wait.
    """

    def __init__(self, stream: TextIO, lines: int = LINES) -> None:
        super().__init__()
        self.setFormatter(PlainFormatter())
        self._stream = stream
        try:
            self._file: int | None = stream.fileno()
        except (AttributeError, OSError, ValueError):
            self._file = None
        self._queue: queue.Queue[str | None] = queue.Queue(lines)
        self._thread = threading.Thread(target=self._write, name="evovit-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it as dropped."""
        try:
            self._queue.put_nowait(self.format(record)[:MAX_LINE] + "\n")
        except queue.Full:
            _drop()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, as far as the stream takes it within a second."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass  # nobody reads
        else:
            self._thread.join(1.0)
        super().close()

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._put(line)
            except (OSError, ValueError):  # closed
                _drop()

    def _put(self, line: str) -> None:
        if self._file is None:
            self._stream.write(line)
            self._stream.flush()
            return
        data = line.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(self._file, data) :]


def _drop() -> None:
    global _dropped
    _dropped += 1

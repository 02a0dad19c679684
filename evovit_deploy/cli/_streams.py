"""What becomes of stdout and stderr that are closed, full, or in an encoding without the characters to be printed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from ..errors import OutputError

__all__ = ["guarded", "prepare"]


def prepare() -> None:
    """Let no character be the end of a command, and no file of the user's get the number of a stream that is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Tell an error of stdout from any other within the block, and empty stdout at its end.

    Raises:
        BrokenPipeError: The reader of stdout, such as ``head``, has gone.
        OutputError: stdout is full or closed.
    """
    before, results = sys.stdout, _Results(sys.stdout)
    sys.stdout = cast(TextIO, results)
    try:
        try:
            yield
        except SystemExit:
            results.flush()
            raise
        except BaseException:  # has its own message, and it is the first thing that went wrong
            with contextlib.suppress(OSError, OutputError):
                results.flush()
            raise
        results.flush()
    finally:
        sys.stdout = before


class _Results:
    """stdout, whose errors say that it was stdout; ``None`` is one that was closed before this program began."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """See io."""
        if self._stream is None:
            raise OutputError("stdout is closed, so the result cannot be printed. Send it to a file, or to /dev/null.")
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        """See io."""
        if self._stream is not None:
            with self._checked():
                self._stream.flush()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._drop()
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"the result could not be written to stdout: {error.strerror or error}. Make room, or send it elsewhere."
            ) from error

    def _drop(self) -> None:
        """Send what is still waiting nowhere, or Python would try once more when it ends, and complain."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)

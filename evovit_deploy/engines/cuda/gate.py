"""Nothing else may happen on the GPU while a graph is recorded; here the engines of a process see to that.

A recording of PyTorch begins by waiting for the whole device, which is an error while another thread records. In global mode,
which ONNX Runtime uses, any thread that allocates ends the recording, and its own call fails too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["GATE", "GpuGate"]


class GpuGate:
    """Many may be in it at once, or one alone. Whoever is in it must not enter again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._waiting = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Be in it with others; one who wants to be alone and waits goes first."""
        with self._changed:
            while self._alone or self._waiting:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be in it alone, once all others have left."""
        with self._changed:
            self._waiting += 1
            try:
                while self._alone or self._inside:
                    self._changed.wait()
                self._alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


GATE = GpuGate()  # of this process

"""Things that one thread uses at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ...errors import EngineError

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Things that one thread uses at a time; made when needed, up to a limit, then waited for.

    Args:
        make: Makes one.
        limit: How many there may be.
    """

    def __init__(self, make: Callable[[], T], limit: int) -> None:
        self._make, self._limit = make, limit
        self._free: list[T] = []
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[T]:
        """Use one; the one that was used last comes first, as its graphs and caches are warm.

        Raises:
            EngineError: The pool was closed.
        """
        with self._changed:
            while not self._closed and not self._free and self._made >= self._limit:
                self._changed.wait()
            if self._closed:
                raise EngineError("the engine is closed.")
            item = self._free.pop() if self._free else None
            if item is None:
                self._made += 1
        if item is None:
            try:
                item = self._make()
            except BaseException:
                with self._changed:
                    self._made -= 1
                    self._changed.notify()
                raise
        try:
            yield item
        finally:
            with self._changed:
                self._free.append(item)
                self._changed.notify_all()

    def close(self) -> list[T]:
        """Refuse new borrowers, wait for those at work, and return everything, which is the caller's to free."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while len(self._free) < self._made:
                self._changed.wait()
            found, self._free, self._made = self._free, [], 0
        return found

"""Forked children: what they inherit without its threads is told so, at once and before anything can wait for it.

A fork copies memory and one thread. Thread pools, batchers and locks that others held are dead in the child; to use them is to
wait for ever. Engines and batchers are watched here, and each says itself what a child may still do with it.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol

from ..errors import EngineError

__all__ = ["end_without_destructors", "keep_for_ever", "no_cuda_here", "watch"]


class Inherited(Protocol):
    """What wants to know that it is in a child."""

    def forked(self) -> None:
        """Called in the child before anything else runs there: start no thread, take no lock, wait for nothing."""


_WATCHED: weakref.WeakSet[Any] = weakref.WeakSet()
_ending = False


def watch(thing: Inherited) -> None:
    """Call ``thing.forked()`` in every child that this process forks while ``thing`` lives."""
    _WATCHED.add(thing)


def keep_for_ever(value: object) -> None:
    """Never free ``value``: its destructor would wait for threads that are not there."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def end_without_destructors() -> None:
    """Let this process end without the destructors of C++ libraries, which wait for threads that are not there.

    Python's own end (``atexit``, buffers) is as ever. Only glibc can do this; elsewhere nothing changes.
    """
    global _ending
    libc = ctypes.CDLL(None)
    if not _ending and hasattr(libc, "on_exit"):
        _ending = True
        libc.on_exit(libc._exit, None)  # calls _exit(status), before handlers that were there earlier


def no_cuda_here(name: str, device: str) -> EngineError:
    """Return the error of an engine on a GPU in a forked child."""
    return EngineError(
        f"{name} was opened on {device} before this process was forked, and CUDA does not work in a forked process. Open the "
        "engine after the fork, or start processes with 'spawn'."
    )


def _in_child() -> None:
    for thing in list(_WATCHED):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

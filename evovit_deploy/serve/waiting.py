"""Waiting for work within limits, so that its error leaves nothing behind.

The traceback of an error holds the frames it went through. A frame that holds the task whose error it is, as that of
``asyncio.wait_for`` before Python 3.12, forms a circle: bodies and images of a refused request would stay until the garbage
collector comes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from .rejections import Rejected

__all__ = ["result_of"]

T = TypeVar("T")


async def result_of(work: Awaitable[T], *, seconds: float | None = None, gone: Awaitable[Any] | None = None) -> T:
    """Return the result of ``work``, which is cancelled when the time is over or the client goes away.

    Args:
        work: What to wait for.
        seconds: At most; None waits for ever.
        gone: Ends when the client goes away.

    Raises:
        asyncio.TimeoutError: The time is over.
        Rejected: 499, which only the log sees: ``gone`` ended first.
    """
    task = asyncio.ensure_future(work)
    left = None if gone is None else asyncio.ensure_future(gone)
    try:
        await asyncio.wait(
            (task,) if left is None else (task, left), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if task.done():
            return task.result()
        if left is not None and left.done():
            raise Rejected(499, "the client went away.")
        raise asyncio.TimeoutError
    finally:
        task.cancel()
        if left is not None:
            left.cancel()
        del task, left, work, gone

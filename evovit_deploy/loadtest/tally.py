"""Counting what became of requests, so that it can be said that none was lost or crossed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .clients import Closed
from .stand_in import numbers
from .wire import Reply

__all__ = ["FIELDS", "outcome", "own", "total"]

# Every request ends as exactly one of these.
FIELDS = (
    "answered",  # with its own number and id
    "refused",  # no room, with the advice to come again later
    "late",  # given up at its deadline
    "failed",  # the engine raised or hung
    "turned_away",  # the connection was closed or not made: the service never had it
    "crossed",  # answered with what belongs to another
    "lost",  # no answer, or a part of one
    "other",
)


async def outcome(send: Callable[[], Awaitable[Reply]], number: int) -> str:
    """Send one request whose image carries ``number``, and whose id is the same; one of :data:`FIELDS`."""
    try:
        answer = await send()
    except Closed as error:
        return "lost" if error.begun else "turned_away"
    except OSError:
        return "turned_away"
    except (asyncio.TimeoutError, ValueError, LookupError):
        return "lost"
    if answer.logits is not None:
        return own(answer, number)
    if answer.refused:
        return "refused" if answer.retry_after else "other"
    if answer.late:
        return "late"
    return "failed" if answer.status in (500, "INTERNAL") else "other"


def own(answer: Reply, number: int) -> str:
    """Return ``answered`` if an answer with logits repeats the request's number and id, else ``crossed``."""
    right = answer.logits is not None and answer.id == str(number) and numbers(answer.logits) == [number]
    return "answered" if right else "crossed"


def total(outcomes: list[str]) -> dict[str, Any]:
    """Return how many of each."""
    counts = Counter(outcomes)
    return {"requests": len(outcomes), **{name: counts[name] for name in FIELDS}}

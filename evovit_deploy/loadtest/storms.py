"""Storms of deadlines and of clients that go away, again and again: the queue is empty afterwards, and memory does not grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .clients import HttpClient, HttpPool
from .process import Served, serving
from .stand_in import NAME, StandIn, numbered
from .tally import outcome, total
from .wire import http_request

__all__ = ["deadline_storms", "disconnect_storms"]

SIZE = 224  # pixels: with 150 kB a request, memory that stays behind is soon seen
AT_ONCE = 200
WARM_UP = 3  # storms until buffers have the size they keep
CALM = 8  # looks at the memory in a row that show no less
LOOK = 0.1  # seconds between them
SECONDS = 30.0  # for the queue to become empty
MIB = 1 << 20
# glibc keeps freed memory for later, how much depends on how its threads come to run. Bodies are larger than this and go back at
# once, so that what stays is what something holds.
GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


async def deadline_storms(storms: int = 9, requests: int = 400) -> dict[str, Any]:
    """Each storm: requests with a deadline that a busy engine cannot keep. They end late, or answered where they were lucky."""
    return await _storms(storms, requests, _deadlines)


async def disconnect_storms(storms: int = 9, requests: int = 400) -> dict[str, Any]:
    """Each storm: clients that send a whole request and close the connection without waiting for the answer."""
    return await _storms(storms, requests, _disconnects)


async def _storms(
    storms: int, requests: int, storm: Callable[[Served, int], Awaitable[list[str]]]
) -> dict[str, Any]:  # fmt: skip
    about = StandIn(0.05, SIZE, settings={"max_batch": 4, "max_queue": 256})
    with serving(about.command, **GIVEN_BACK) as served:
        ends: list[str] = []
        resident: list[int] = []
        queued = 0
        for _ in range(storms):
            ends += await storm(served, requests)
            queued = max(queued, await _queued(served))
            resident.append(await _settled(served))
        after = http_request(NAME, numbered(7, SIZE), id="7")
        pool = HttpPool(served.http)
        last = await outcome(lambda: pool.infer(after), 7)
        pool.close()
        calm = resident[WARM_UP - 1 :]
        half = len(calm) // 2
        # The peaks of the two halves: one storm may leave a little more or less behind than the next.
        growth = max(calm[half:]) - max(calm[:half]) if half else 0
        return {
            **total(ends),
            "storms": storms,
            "queued_after": queued,
            "answers_afterwards": last == "answered",
            "resident_mib": [round(value / MIB, 1) for value in resident],
            "growth_mib": round(growth / MIB, 2),
            "sent_in_second_half_mib": round((len(calm) - half) * requests * SIZE * SIZE * 3 / MIB, 1),
        }


async def _deadlines(served: Served, requests: int) -> list[str]:
    pool, room = HttpPool(served.http), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        request = http_request(NAME, numbered(number, SIZE), id=str(number), timeout_us=20_000)
        async with room:
            return await outcome(lambda: pool.infer(request), number)

    ends = list(await asyncio.gather(*map(one, range(requests))))
    pool.close()
    return ends


async def _disconnects(served: Served, requests: int) -> list[str]:
    """What becomes of them is not theirs to see: they count as turned away."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        request = http_request(NAME, numbered(number, SIZE), id=str(number))
        async with room:
            client = await HttpClient.connect(served.http)
            task = asyncio.ensure_future(outcome(lambda: client.infer(request), number))
            await asyncio.sleep(0.01 * (1 + number % 5))  # some wait in the queue by then, some are being read
            client.leave()
            return await task

    return list(await asyncio.gather(*map(one, range(requests))))


async def _queued(served: Served) -> int:
    """Images that wait once the storm is over; given time, as the service has to notice that a client is gone."""
    until = time.monotonic() + SECONDS
    while (queued := await asyncio.to_thread(served.queued)) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return queued


async def _settled(served: Served) -> int:
    """Bytes of memory once they get no fewer: requests whose clients are gone end a moment after the storm."""
    least, calm = served.resident_bytes() or 0, 0
    while calm < CALM:
        await asyncio.sleep(LOOK)
        now = served.resident_bytes() or 0
        least, calm = (now, 0) if now < least else (least, calm + 1)
    return least

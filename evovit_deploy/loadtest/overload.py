"""More than the service can take, and engines that fail: every request is answered or refused, and to the right caller."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from .clients import GrpcClient, HttpPool
from .process import Served, serving
from .stand_in import NAME, StandIn, generations, numbered
from .tally import outcome, total
from .wire import grpc_request, http_request

__all__ = ["failing_engine", "hanging_engine", "hot_swap", "overload"]

Client = HttpPool | GrpcClient
CALLERS = 16  # of a closed loop
# Requests that are not answered yet: far more than the service takes; fewer than files may be open, and, over gRPC, than calls
# on its one connection, beyond which HTTP/2 itself turns them away.
OPEN = {"http": 2_000, "grpc": 400}


async def overload(protocol: str = "http", requests: int = 10_000, times: float = 4.0) -> dict[str, Any]:
    """Requests come at ``times`` the capacity, whether or not the earlier ones are answered.

    A client that is behind, on a busy machine, keeps as many open as :data:`OPEN` says and no more: they would run into limits
    of the system and of HTTP/2, which are not what is looked at here.

    Args:
        protocol: ``http`` or ``grpc``.
        requests: How many.
        times: The capacity of the engine, full batches one after another.

    Returns:
        Counts, and ``images_run``: what the engine ran by the service's own count, which is what was answered.
    """
    about = StandIn(0.02, settings={"max_batch": 8, "max_queue": 64, "max_connections": 2 * OPEN["http"]})
    with serving(about.command) as served:
        client, room = _client(protocol, served), asyncio.Semaphore(OPEN[protocol])

        async def ask(number: int) -> str:
            async with room:
                return await _ask(client, protocol, number, about)

        rate, started = times * about.capacity, time.perf_counter()
        tasks = []
        for number in range(requests):
            due = started + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            elif number % 32 == 0:
                await asyncio.sleep(0)  # behind: let answers be read all the same
            tasks.append(asyncio.ensure_future(ask(number)))
        sent = time.perf_counter() - started
        found = total(await asyncio.gather(*tasks))
        await _close(client)
        return {
            **found,
            "capacity_per_second": about.capacity,
            "offered_per_second": round(requests / sent, 1),
            "images_run": served.statistics()["inference_count"],
            "queued_after": served.queued(),
            "ready_after": served.get("/v2/health/ready")["ready"],
        }


async def failing_engine(protocol: str = "http", requests: int = 600) -> dict[str, Any]:
    """The engine raises on every tenth image; batches hold good and bad ones. The bad ones fail and no other."""
    about = StandIn(0.002, fail_every=10, settings={"max_batch": 8, "max_queue": 64})
    with serving(about.command) as served:
        client = _client(protocol, served)
        found = await _closed_loop(client, protocol, range(requests), about)
        await _close(client)
        wrong = sum((end == "failed") != (number % 10 == 1) for number, end in found.items())
        return {**total(list(found.values())), "wrong_ones_failed": wrong, "queued_after": served.queued(),
                "ready_after": served.get("/v2/health/ready")["ready"]}  # fmt: skip


async def hanging_engine(protocol: str = "http", requests: int = 300) -> dict[str, Any]:
    """One image makes the engine hang for ever, in the middle of others. It fails after the run's time; the others do not."""
    about = StandIn(0.002, hang_at=(100,), settings={"max_batch": 8, "max_queue": 64, "run_timeout": 0.5})
    with serving(about.command) as served:
        client = _client(protocol, served)
        found = await _closed_loop(client, protocol, range(requests), about)
        await _close(client)
        wrong = sum((end == "failed") != (number == 100) for number, end in found.items())
        result = {**total(list(found.values())), "wrong_ones_failed": wrong, "queued_after": served.queued(),
                  "ready_after": served.get("/v2/health/ready")["ready"]}  # fmt: skip
        served.signal()
        return {**result, "exit_code": served.wait()}


async def hot_swap(protocol: str = "http", requests: int = 2_000, swaps: int = 5) -> dict[str, Any]:
    """Reloads in the middle of load: every request is answered, by the old engine or the new one."""
    about = StandIn(0.002, settings={"max_batch": 8, "max_queue": 64, "control": True})
    with serving(about.command) as served:
        client = _client(protocol, served)
        seen: set[int] = set()
        load = asyncio.ensure_future(_closed_loop(client, protocol, range(requests), about, seen))
        done = 0
        while not load.done() and done < swaps:
            await asyncio.to_thread(served.post, f"/v2/repository/models/{NAME}/load")
            done += 1
            await asyncio.sleep(0.05)
        found = await load
        await _close(client)
        return {**total(list(found.values())), "swaps": done, "engines_that_answered": len(seen),
                "queued_after": served.queued()}  # fmt: skip


async def _closed_loop(
    client: Client, protocol: str, wanted: range, about: StandIn, seen: set[int] | None = None
) -> dict[int, str]:
    """Callers that send the next request when the last is answered; number -> outcome."""
    found: dict[int, str] = {}
    order = iter(wanted)

    async def caller() -> None:
        for number in order:
            found[number] = await _ask(client, protocol, number, about, seen)

    await asyncio.gather(*itertools.starmap(caller, [()] * CALLERS))
    return found


async def _ask(
    client: Client, protocol: str, number: int, about: StandIn, seen: set[int] | None = None
) -> str:  # fmt: skip
    make = http_request if protocol == "http" else grpc_request
    request = make(NAME, numbered(number, about.size), id=str(number))

    async def send() -> Any:
        answer = await client.infer(request)
        if seen is not None and answer.logits is not None:
            seen.update(generations(answer.logits))
        return answer

    return await outcome(send, number)


def _client(protocol: str, served: Served) -> Client:
    return HttpPool(served.http) if protocol == "http" else GrpcClient(served.grpc)


async def _close(client: Client) -> None:
    if isinstance(client, GrpcClient):
        await client.close()
    else:
        client.close()

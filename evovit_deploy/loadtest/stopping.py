"""SIGTERM in the middle of load: what the service accepted is answered, and its exit code says so."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from .clients import GrpcClient, HttpClient
from .process import Served, serving
from .stand_in import NAME, StandIn, numbered
from .tally import outcome, total
from .wire import grpc_request, http_request

__all__ = ["sigterm"]

CALLERS = 16


async def sigterm(protocol: str = "http", after: int = 300) -> dict[str, Any]:
    """Clients send one request after another; after some answers the service gets SIGTERM.

    What the service accepted is what its access log tells of, whatever became of it. A request that is not in the log, and
    was turned away or whose connection was closed, never reached it: a client may safely send it elsewhere.

    Args:
        protocol: ``http`` or ``grpc``.
        after: Answers until the signal.

    Returns:
        Counts, the exit code, and ``accepted_without_answer``: in the log, and neither answered nor refused.
    """
    about = StandIn(0.005, settings={"max_batch": 8, "max_queue": 64}, access_log=True)
    with serving(about.command) as served:
        found: dict[int, str] = {}
        order, signalled = itertools.count(), asyncio.Event()

        async def caller() -> None:
            client = await _client(protocol, served)
            for number in order:
                found[number] = await outcome(lambda number=number: _ask(client, protocol, number, about), number)  # type: ignore[misc]
                if len(found) == after:
                    served.signal()
                    signalled.set()
                if found[number] == "turned_away":
                    break
            if isinstance(client, GrpcClient):
                await client.close()

        await asyncio.gather(*itertools.starmap(caller, [()] * CALLERS))
        code = await asyncio.to_thread(served.wait)
        logged = _accepted(served)
        received = {number for number, end in found.items() if end in ("answered", "refused", "failed", "late")}
        return {
            **total(list(found.values())),
            "signalled": signalled.is_set(),
            "exit_code": code,
            "accepted": len(logged),
            "accepted_without_answer": len(logged - received),
        }


def _accepted(served: Served) -> set[int]:
    """Numbers of the requests that the access log has."""
    entries = [json.loads(line) for line in served.log if line.startswith("{")]
    return {int(entry["id"]) for entry in entries if entry.get("id")}


async def _client(protocol: str, served: Served) -> HttpClient | GrpcClient:
    return await HttpClient.connect(served.http) if protocol == "http" else GrpcClient(served.grpc)


async def _ask(client: HttpClient | GrpcClient, protocol: str, number: int, about: StandIn) -> Any:
    make = http_request if protocol == "http" else grpc_request
    return await client.infer(make(NAME, numbered(number, about.size), id=str(number)))

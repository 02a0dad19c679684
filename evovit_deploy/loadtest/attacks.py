"""Attacks on a service by clients of the loopback address, with a good client beside them: none stops it, and what each costs.

The attacks are bounded in size and time, and the service is one around a stand-in that this program started.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..serve.memory import worst_memory
from ..serve.settings import ServiceSettings
from .attackers import ATTACKERS, SIZE, Attacker
from .clients import HttpPool
from .process import Served, serving
from .results import surroundings
from .stand_in import NAME, StandIn, numbered
from .tally import outcome, total
from .wire import http_request

__all__ = ["attack", "broken", "run_attacks"]

MIB = 1 << 20
DRAIN = 5  # seconds, of the service
GOOD = 40  # requests of the good client during an attack
LIVE = 0.5  # seconds within which liveness has to answer
GRACE = 2.0  # seconds after the drain in which the process has to be gone
CLIENTS = (1, 20)
PATIENCE = 10.0  # seconds after which a request of the good client is lost
PAUSE = 0.05  # seconds between questions
SETTINGS: dict[str, Any] = {"max_batch": 8, "max_queue": 64, "max_request_mib": 16, "max_body_mib": 64, "drain": DRAIN}
SETTINGS |= {"max_connections": 200, "max_pixels": 16_000_000}


@dataclass
class Probe:
    """Asks for liveness again and again, on a connection of its own each time."""

    served: Served
    asked: int = 0
    failed: int = 0
    worst: float = 0.0
    stopped: bool = False

    def run(self) -> None:
        """Ask until stopped."""
        while not self.stopped:
            started = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://{self.served.http}/v2/health/live", timeout=30) as answer:
                    self.failed += answer.status != 200
            except OSError:
                self.failed += 1
            self.asked += 1
            self.worst = max(self.worst, time.monotonic() - started)
            time.sleep(PAUSE)


async def attack(attacker: Attacker, clients: int) -> dict[str, Any]:
    """Let so many clients attack at once while a good one goes on, then end the service while they are still there.

    Returns:
        What became of the good client's requests, and of liveness; peak of memory and its bound, MiB; seconds from SIGTERM to
        the end of the process.
    """
    about = StandIn(0.002, SIZE, settings=SETTINGS, access_log=True)
    with serving(about.command) as served, contextlib.ExitStack() as stack:
        pool, numbers = HttpPool(served.http), iter(range(1, 1 << 20))

        async def good(count: int) -> list[str]:
            ends = []
            for number in (next(numbers) for _ in range(count)):
                request = http_request(NAME, numbered(number, SIZE), id=str(number))
                sent = functools.partial(asyncio.wait_for, pool.infer(request), PATIENCE)
                ends.append(await outcome(sent, number))
                await asyncio.sleep(PAUSE)
            return ends

        before = await good(3)
        idle = served.peak_bytes() or 0
        probe = Probe(served)
        watching = asyncio.ensure_future(asyncio.to_thread(probe.run))
        attacking = [asyncio.ensure_future(asyncio.to_thread(attacker, served, stack)) for _ in range(clients)]
        during = await good(GOOD)
        await asyncio.gather(*attacking)
        after = await good(3)
        probe.stopped = True
        await watching
        peak = (served.peak_bytes() or 0) - idle
        pool.close()
        started = time.monotonic()
        served.signal()
        code = await asyncio.to_thread(served.wait)
        settings = ServiceSettings(**SETTINGS)
        return {
            **total(before + during + after),
            "clients": clients,
            "unanswered_before_or_after": sum(end != "answered" for end in before + after),
            "live_asked": probe.asked,
            "live_failed": probe.failed,
            "live_worst_s": round(probe.worst, 3),
            "peak_mib": round(peak / MIB),
            "bound_mib": round(sum(worst_memory(settings, SIZE * SIZE * 3).values()) / MIB),
            "stop_s": round(time.monotonic() - started, 2),
            "exit_code": code,
        }


def broken(counts: dict[str, Any], *, timed: bool = True) -> list[str]:
    """Say what does not hold; without ``timed``, only what does not depend on how busy the machine is."""
    names = ("crossed", "lost", "failed", "late", "other", "unanswered_before_or_after", "live_failed", "exit_code")
    found = [f"{name} is {counts[name]}" for name in names if counts[name]]
    if counts["peak_mib"] > counts["bound_mib"]:
        found.append(f"memory grew by {counts['peak_mib']} MiB, beyond {counts['bound_mib']} MiB")
    if timed and counts["live_worst_s"] > LIVE:
        found.append(f"liveness took {counts['live_worst_s']} s")
    if timed and counts["stop_s"] > DRAIN + GRACE:
        found.append(f"the end took {counts['stop_s']} s")
    return found


def run_attacks(*, command: str = "", tell: Callable[[float, str], None] = lambda share, text: None) -> dict[str, Any]:
    """Run every attack with one attacker and with twenty.

    Args:
        command: For the record.
        tell: Called before each with the share done and its name.

    Returns:
        A record: the machine, and for each attack what it did and what does not hold.
    """
    environment = surroundings(None)
    found: dict[str, dict[str, Any]] = {}
    for step, (clients, name) in enumerate(itertools.product(CLIENTS, ATTACKERS)):
        title = f"{name}, {clients} client{'s' * (clients > 1)}"
        tell(step / (len(CLIENTS) * len(ATTACKERS)), title)
        counts = asyncio.run(attack(ATTACKERS[name], clients))
        found[title] = {**counts, "broken": broken(counts)}
    tell(1.0, "done")
    return {"kind": "serve-attacks", "schema": 1, "command": command, "environment": environment, "scenarios": found}

"""Every scenario of load and faults by name, at the size that is recorded and at a smaller one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .overload import failing_engine, hanging_engine, hot_swap, overload
from .ray_faults import deploy, node_killed, ray_cluster, replica_killed
from .results import surroundings
from .stopping import sigterm
from .storms import deadline_storms, disconnect_storms

__all__ = ["RAY_SCENARIOS", "SCENARIOS", "Scenario", "run_faults"]

Counts = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A kind of load, and what has to hold of its counts.

    Attributes:
        run: The whole of it; gives counts. Those of Ray take the cluster.
        holds: Count -> the value that it must have, beside the promise of all: nothing lost, crossed or otherwise odd.
        may_fail: Whether requests fail because the engine does.
    """

    run: Callable[..., Awaitable[Counts]]
    holds: Mapping[str, object] = field(default_factory=dict)
    may_fail: bool = False

    def broken(self, counts: Counts) -> list[str]:
        """Say what does not hold, in words; nothing if all does."""
        wanted = {"lost": 0, "crossed": 0, "other": 0, **({} if self.may_fail else {"failed": 0}), **self.holds}
        found = [f"{name} is {counts[name]}, not {value}" for name, value in wanted.items() if counts[name] != value]
        return found if counts["answered"] else [*found, "nothing was answered"]


CALM = {"queued_after": 0, "ready_after": True, "turned_away": 0}
SCENARIOS = {
    "overload over HTTP": Scenario(partial(overload, "http", 10_000), {**CALM, "late": 0}),
    "overload over gRPC": Scenario(partial(overload, "grpc", 2_000), {**CALM, "late": 0}),
    "engine that raises": Scenario(failing_engine, {**CALM, "wrong_ones_failed": 0}, may_fail=True),
    "engine that hangs": Scenario(
        hanging_engine, {"wrong_ones_failed": 0, "queued_after": 0, "ready_after": True}, may_fail=True
    ),
    "hot swap": Scenario(hot_swap, {"queued_after": 0, "turned_away": 0, "refused": 0}),
    "SIGTERM over HTTP": Scenario(partial(sigterm, "http"), {"exit_code": 0, "accepted_without_answer": 0}),
    "SIGTERM over gRPC": Scenario(partial(sigterm, "grpc"), {"exit_code": 0, "accepted_without_answer": 0}),
}
KILLED = {"replaced": True, "refused": 0, "late": 0, "turned_away": 0}
RAY_SCENARIOS = {
    "Ray replica killed": Scenario(replica_killed, KILLED),
    "Ray node killed": Scenario(node_killed, KILLED),
}
STORMS = {
    "storm of deadlines": deadline_storms,
    "storm of clients that leave": disconnect_storms,
}


def run_faults(
    *, ray: bool = False, command: str = "", tell: Callable[[float, str], None] = lambda share, text: None
) -> Counts:
    """Run all scenarios and storms one after another.

    Args:
        ray: In their place those of a Ray cluster: a replica and a node killed under load.
        command: For the record.
        tell: Called before each with the share done and its name.

    Returns:
        A record: the machine, and for each scenario its counts and what does not hold.
    """
    environment = surroundings(None)
    found = _on_ray(tell) if ray else _of_the_service(tell)
    tell(1.0, "done")
    return {"kind": "serve-faults", "schema": 1, "command": command, "environment": environment, "scenarios": found}


def _of_the_service(tell: Callable[[float, str], None]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    everything: dict[str, Callable[[], Awaitable[Counts]]] = {n: s.run for n, s in SCENARIOS.items()}
    everything |= STORMS
    for number, (name, run) in enumerate(everything.items()):
        tell(number / len(everything), name)
        counts: Counts = asyncio.run(run())  # type: ignore[arg-type]
        found[name] = {
            **counts,
            "broken": SCENARIOS[name].broken(counts) if name in SCENARIOS else storm_broken(counts),
        }
    return found


def _on_ray(tell: Callable[[float, str], None]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    tell(0.0, "a cluster of two nodes")
    with ray_cluster() as pair:
        deploy(pair)
        for number, (name, scenario) in enumerate(RAY_SCENARIOS.items(), 1):
            tell(number / (1 + len(RAY_SCENARIOS)), name)
            counts: Counts = asyncio.run(scenario.run(pair))  # type: ignore[arg-type]
            found[name] = {**counts, "broken": scenario.broken(counts)}
    return found


def storm_broken(counts: Counts) -> list[str]:
    """Say what does not hold after storms: the queue empty, the next request answered, nothing lost, memory flat.

    Memory counts as flat if the second half of the storms left less than a tenth behind of what was sent in it.
    """
    broken = [
        f"{name} is {counts[name]}" for name in ("lost", "crossed", "other", "failed", "queued_after") if counts[name]
    ]
    if not counts["answers_afterwards"]:
        broken.append("the request after the storms was not answered")
    if counts["growth_mib"] > counts["sent_in_second_half_mib"] / 10:
        broken.append(f"memory grew by {counts['growth_mib']} MiB")
    return broken

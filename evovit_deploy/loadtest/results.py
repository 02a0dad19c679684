"""What the measurements of a service found, ready for a record, a table, and a verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..bench.quantities import MISSING
from ..bench.text import Table
from ..machine.facts import environment, package_version

__all__ = [
    "SCHEMA",
    "Ceiling",
    "Overhead",
    "ServedSubject",
    "SpeedReport",
    "SpeedSettings",
    "Throughput",
    "surroundings",
]

SCHEMA = 1
PACKAGES = ("starlette", "uvicorn", "uvloop", "httptools", "grpcio", "tritonclient", "ray")
OVERHEAD_MS, SHARE = 1.5, 0.85  # what this service promises over HTTP


@dataclass(frozen=True)
class SpeedSettings:
    """How to measure.

    Attributes:
        seconds: For each of up to five measurements; six rounds are always made.
        clients: At once, where there are many.
        max_batch: Of the service, and of the engine called directly.
        waits_ms: A run of the stand-in.
        image_size: Of the stand-in's images, pixels.
        turn: Seconds of a turn.
        provider, threads: As for ``Engine.open``.
    """

    seconds: float = 20.0
    clients: int = 32
    max_batch: int = 8
    waits_ms: float = 20.0
    image_size: int = 224
    turn: float = 0.5
    provider: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class ServedSubject:
    """An engine behind the service, and the same called directly.

    Attributes:
        name: Of the model, or ``waits 20 ms``.
        backend, device: As of the engine.
        image: Shape of one image.
        input: ``uint8`` or ``float32``.
        max_batch: Images per batch, here and there.
    """

    name: str
    backend: str
    device: str
    image: tuple[int, ...]
    input: str
    max_batch: int


@dataclass(frozen=True)
class Overhead:
    """One client, one image: the service against the engine, turn by turn.

    Attributes:
        direct_p50_ms, service_p50_ms: Medians of every call.
        p50_ms: Median of the differences of neighbouring turns, [low, high] its 95% interval.
        rounds, calls: Turns of each, and calls in a turn.
    """

    subject: str
    protocol: str
    direct_p50_ms: float
    service_p50_ms: float
    p50_ms: float
    low: float | None
    high: float | None
    rounds: int
    calls: int


@dataclass(frozen=True)
class Throughput:
    """Many clients, one image a request: the service against the engine called with full batches, turn by turn.

    Attributes:
        clients: Each sends its next request when the last is answered.
        direct_images_per_second, service_images_per_second: Medians of the turns.
        mean_batch: Images per batch of the service.
        share: Median of the ratios of neighbouring turns, [low, high] its 95% interval.
        p50_ms, p99_ms: Latency of the requests; p99 from 500 on.
        rounds, requests: Turns of each, and requests in a turn.
    """

    subject: str
    protocol: str
    clients: int
    direct_images_per_second: float
    service_images_per_second: float
    mean_batch: float
    share: float
    low: float | None
    high: float | None
    p50_ms: float
    p99_ms: float | None
    rounds: int
    requests: int


@dataclass(frozen=True)
class Ceiling:
    """What the service reaches around an engine that answers at once: requests per second, median, slowest, fastest turn."""

    protocol: str
    clients: int
    requests_per_second: float
    slowest: float
    fastest: float
    rounds: int


@dataclass(frozen=True)
class SpeedReport:
    """Everything that `evovit bench serve` found.

    Attributes:
        subjects, overhead, throughput, ceiling: See there.
        settings: How it was measured.
        environment: Where, see :func:`surroundings`.
        command: What was typed, with file names in place of paths.
    """

    subjects: tuple[ServedSubject, ...]
    overhead: tuple[Overhead, ...]
    throughput: tuple[Throughput, ...]
    ceiling: tuple[Ceiling, ...]
    settings: dict[str, Any]
    environment: dict[str, Any]
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; the promise and whether it was kept come with it."""
        promise = {"overhead_ms": OVERHEAD_MS, "share": SHARE, "kept": self.kept}
        return {"schema": SCHEMA, "kind": "serving", "promise": promise, **dataclasses.asdict(self)}

    @property
    def kept(self) -> bool:
        """Whether every overhead and share over HTTP is within what the service promises."""
        overheads = [found.p50_ms <= OVERHEAD_MS for found in self.overhead if found.protocol == "http"]
        return all((*overheads, *(found.share >= SHARE for found in self.throughput if found.protocol == "http")))

    def lines(self) -> list[str]:
        """Return the promise, and whether it was kept."""
        before, after = (self.environment.get(name) for name in ("load_average", "load_average_after"))
        return [
            f"-> promised over HTTP: at most {OVERHEAD_MS:g} ms more at one client, at least {SHARE:.0%} of the engine's "
            f"throughput at many: {'kept' if self.kept else 'NOT kept'}",
            f"load average of the machine: {before} before, {after} after (this run included)",
        ]

    def tables(self) -> list[Table]:
        """Return tables for the terminal and for Markdown."""
        overhead = tuple(
            (
                o.subject,
                o.protocol,
                f"{o.direct_p50_ms:.2f}",
                f"{o.service_p50_ms:.2f}",
                f"{o.p50_ms:+.2f}{_interval(o.low, o.high)}",
                f"{o.rounds * o.calls}",
            )
            for o in self.overhead
        )
        throughput = tuple(
            (
                t.subject,
                t.protocol,
                f"{t.direct_images_per_second:.1f}",
                f"{t.service_images_per_second:.1f}",
                f"{t.share:.3f}{_interval(t.low, t.high)}",
                f"{t.mean_batch:.1f}",
                f"{t.p50_ms:.1f}",
                MISSING if t.p99_ms is None else f"{t.p99_ms:.1f}",
            )
            for t in self.throughput
        )
        ceiling = tuple(
            (c.protocol, f"{c.requests_per_second:.0f}", f"{c.slowest:.0f} to {c.fastest:.0f}") for c in self.ceiling
        )
        clients = self.settings["clients"]
        return [
            Table(
                "One client, one image: what the service adds to the engine",
                ("engine", "protocol", "engine p50 ms", "service p50 ms", "overhead ms", "calls"),
                overhead,
            ),
            Table(
                f"{clients} clients: throughput beside the engine called directly with full batches",
                ("engine", "protocol", "engine img/s", "service img/s", "share", "mean batch", "p50 ms", "p99 ms"),
                throughput,
            ),
            Table(
                f"{clients} clients, an engine that answers at once: the ceiling of one process",
                ("protocol", "requests/s", "turns"),
                ceiling,
            ),
        ]


def surroundings(threads: int | None) -> dict[str, Any]:
    """Return :func:`~evovit_deploy.machine.facts.environment`, with the versions of what serves."""
    found = environment(threads)
    found["versions"] |= {name: version for name in PACKAGES if (version := package_version(name)) is not None}
    return found


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"

"""One engine, the service around it, and the clients: turns of the engine called directly and of the service, and their ratio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bench import statistics
from ..bench.images import batch_of, seeded_images
from ..engines.base import Engine
from ..errors import EngineError
from .clients import GrpcClient, HttpPool
from .process import Served
from .results import Ceiling, Overhead, SpeedSettings, Throughput
from .wire import Reply, grpc_request, http_request

__all__ = ["Part", "Tell"]

Tell = Callable[[float, str], None]
Caller = Callable[[], Awaitable[Reply]]
PROTOCOLS = ("http", "grpc")
MAX_CALLS = 64  # in a turn
MIN_BATCHES = 4  # in a turn
WARM_UP = 3  # turns' worth of calls at one client


class Part:
    """One engine, the service around it, and the clients of both protocols."""

    def __init__(
        self, label: str, name: str, engine: Engine, served: Served, settings: SpeedSettings, tell: Tell,
        start: float, share: float,
    ) -> None:  # fmt: skip
        self.label, self.engine, self.served, self.settings = label, engine, served, settings
        self._tell, self._start, self._share = tell, start, share
        images, _ = seeded_images(engine.spec, settings.max_batch)
        self.image = np.ascontiguousarray(images[:1])
        self.batch = np.ascontiguousarray(batch_of(images, settings.max_batch))
        self.requests: dict[str, Any] = {
            "http": http_request(name, self.image),
            "grpc": grpc_request(name, self.image),
        }
        self.callers: dict[str, list[Caller]] = {}

    async def measure(self) -> tuple[list[Overhead], list[Throughput]]:
        """Measure overhead at one client, then throughput at many."""
        await self._connect()
        try:
            return await self._overhead(), await self._throughput()
        finally:
            await self._disconnect()

    async def ceiling(self) -> tuple[Ceiling, ...]:
        """Measure requests per second with many clients."""
        await self._connect()
        try:
            count = max(8 * self.settings.clients, round(1000 * self.settings.turn))
            rates: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
            turns = {name: self._many_turn(name, count, [], rates[name]) for name in PROTOCOLS}
            rounds = await self._rounds(turns, self.settings.seconds, 0.0, 1.0, "ceiling")
        finally:
            await self._disconnect()
        found = {name: 1 / np.array(values[-rounds:]) for name, values in rates.items()}
        return tuple(
            Ceiling(
                name,
                self.settings.clients,
                float(np.median(values)),
                float(values.min()),
                float(values.max()),
                rounds,
            )
            for name, values in found.items()
        )

    async def _overhead(self) -> list[Overhead]:
        started = time.perf_counter()
        for _ in range(WARM_UP):
            self.engine(self.image)
            for name in PROTOCOLS:
                await self._check(await self.callers[name][0]())
        slowest = (time.perf_counter() - started) / WARM_UP / 3
        calls = max(2, min(MAX_CALLS, int(self.settings.turn / slowest)))
        seconds: dict[str, list[list[float]]] = {"direct": [], **{name: [] for name in PROTOCOLS}}

        async def direct() -> None:
            seconds["direct"].append([_timed(self.engine, self.image) for _ in range(calls)])

        def one(name: str) -> Callable[[], Awaitable[None]]:
            async def turn() -> None:
                found = []
                for _ in range(calls):
                    start = time.perf_counter()
                    answer = await self.callers[name][0]()
                    found.append(time.perf_counter() - start)
                    _ok(answer)
                seconds[name].append(found)

            return turn

        turns = {"direct": direct, **{name: one(name) for name in PROTOCOLS}}
        rounds = await self._rounds(turns, self.settings.seconds, 0.0, 0.5, "one client")
        found = []
        for name in PROTOCOLS:
            a, b = (np.array(seconds[key][-rounds:]) for key in ("direct", name))
            value, low, high = statistics.difference_interval(a, b)
            found.append(
                Overhead(
                    self.label,
                    name,
                    1000 * float(np.median(a)),
                    1000 * float(np.median(b)),
                    1000 * value,
                    None if low is None else 1000 * low,
                    None if high is None else 1000 * high,
                    rounds,
                    calls,
                )
            )
        return found

    async def _throughput(self) -> list[Throughput]:
        settings = self.settings
        seconds_a_batch = min(_timed(self.engine, self.batch) for _ in range(WARM_UP))
        batches = max(MIN_BATCHES, int(settings.turn / seconds_a_batch))
        count = batches * settings.max_batch
        per_image: dict[str, list[float]] = {"direct": [], **{name: [] for name in PROTOCOLS}}
        latencies: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
        sizes: dict[str, list[int]] = {name: [] for name in PROTOCOLS}

        async def direct() -> None:
            start = time.perf_counter()
            for _ in range(batches):
                self.engine(self.batch)
            per_image["direct"].append((time.perf_counter() - start) / count)

        def many(name: str) -> Callable[[], Awaitable[None]]:
            turn = self._many_turn(name, count, latencies[name], per_image[name])

            async def counted() -> None:
                before = self._counts()
                await turn()
                sizes[name].extend(b - a for a, b in zip(before, self._counts()))

            return counted

        turns = {"direct": direct, **{name: many(name) for name in PROTOCOLS}}
        rounds = await self._rounds(turns, settings.seconds, 0.5, 0.5, f"{settings.clients} clients")
        found = []
        for name in PROTOCOLS:
            a, b = (np.array(per_image[key][-rounds:])[:, None] for key in ("direct", name))
            share, low, high = statistics.speedup_interval(a, b)
            waits = statistics.latency(np.array(latencies[name]))
            found.append(
                Throughput(
                    subject=self.label,
                    protocol=name,
                    clients=settings.clients,
                    direct_images_per_second=1 / float(np.median(a)),
                    service_images_per_second=1 / float(np.median(b)),
                    mean_batch=sum(sizes[name][::2]) / sum(sizes[name][1::2]),
                    share=share,
                    low=low,
                    high=high,
                    p50_ms=waits.p50_ms,
                    p99_ms=waits.p99_ms,
                    rounds=rounds,
                    requests=count,
                )
            )
        return found

    def _many_turn(
        self, name: str, count: int, latencies: list[float], per_image: list[float]
    ) -> Callable[[], Awaitable[None]]:
        """A turn in which every client sends one request after another.

        What is timed is the middle: from the answer that ends the first round of the clients, when the queue is full, until
        ``count`` more have come, while every client goes on sending.
        """

        async def turn() -> None:
            stamps: list[float] = []
            first = len(self.callers[name])

            async def client(caller: Caller) -> None:
                while len(stamps) < first + count:
                    start = time.perf_counter()
                    answer = await caller()
                    stamps.append(time.perf_counter())
                    latencies.append(stamps[-1] - start)
                    _ok(answer)

            await asyncio.gather(*map(client, self.callers[name]))
            per_image.append((stamps[first + count - 1] - stamps[first - 1]) / count)

        return turn

    async def _rounds(
        self, turns: Mapping[str, Callable[[], Awaitable[None]]], seconds: float, start: float, share: float, what: str
    ) -> int:
        """One unmeasured round, then rounds until the time is over, at least six; returns how many were measured."""
        order = list(turns.values())
        for turn in order:
            await turn()
        began, rounds = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < seconds or rounds < statistics.MIN_ROUNDS:
            done = start + share * min(1.0, spent / seconds, rounds / statistics.MIN_ROUNDS)
            self._tell(self._start + self._share * done, f"{self.label}: {what}")
            for turn in order:
                await turn()
            order.reverse()
            rounds += 1
        return rounds

    def _counts(self) -> tuple[int, int]:
        found = self.served.statistics()
        return found["inference_count"], found["execution_count"]

    async def _check(self, answer: Reply) -> None:
        """The service gives what the engine gives: otherwise something else would be compared."""
        _ok(answer)
        expected = self.engine(self.image)[self.engine.spec.require_scores()]
        if answer.logits is None or answer.logits.tobytes() != expected.tobytes():
            raise EngineError(f"{self.label}: the service's answer is not the engine's own; nothing was measured.")

    async def _connect(self) -> None:
        def caller(client: HttpPool | GrpcClient, name: str) -> Caller:
            return lambda: client.infer(self.requests[name])

        count = self.settings.clients
        self._http = [HttpPool(self.served.http) for _ in range(count)]  # one connection each, renewed if it ended
        self._grpc = [GrpcClient(self.served.grpc) for _ in range(count)]
        self.callers = {
            "http": [caller(c, "http") for c in self._http],
            "grpc": [caller(c, "grpc") for c in self._grpc],
        }

    async def _disconnect(self) -> None:
        for pool in self._http:
            pool.close()
        for channel in self._grpc:
            await channel.close()


def _timed(engine: Engine, images: NDArray[Any]) -> float:
    start = time.perf_counter()
    engine(images)
    return time.perf_counter() - start


def _ok(answer: Reply) -> None:
    if not answer.ok:
        raise EngineError(f"the service answered {answer.status}: {answer.reason}")

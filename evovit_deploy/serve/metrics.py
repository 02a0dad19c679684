"""Prometheus metrics of a service, and the counters behind the protocol's statistics."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ..engines.batching.requests import BatchRecord

__all__ = ["Metrics", "Statistics"]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one service, in a separate registry."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        model = ("model", "version")
        self.requests = Counter(
            "evovit_requests", "Requests answered.", (*model, "protocol", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "evovit_request_seconds",
            "Whole time of a request in the service, its arrival included.",
            (*model, "protocol"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.phases = Histogram(
            "evovit_phase_seconds",
            "Time a request waits (queue), and time a batch runs (compute).",
            (*model, "phase"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.images = Counter("evovit_images", "Images that ran.", model, registry=self.registry)
        self.batches = Histogram(
            "evovit_batch_images", "Images per batch.", model, buckets=BATCHES, registry=self.registry
        )
        self.failures = Counter("evovit_engine_failures", "Runs that raised or hung.", model, registry=self.registry)

    def watch(self, gauges: Any) -> None:
        """Report the queue and the state of models whenever somebody asks for the metrics."""
        self.registry.register(gauges)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


@dataclass
class Duration:
    """A count and its total time."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add one, or ``count``."""
        self.count += count
        self.seconds += seconds


@dataclass
class Statistics:
    """What a model did since it was loaded; ``batch`` may be called from any thread.

    Attributes:
        success, fail: Requests and their whole time.
        queue: Time they waited.
        compute: Time of runs, counted once for each request in the run.
        batches: Images per batch -> runs of that size and their time.
        images: Images that ran.
        last: Milliseconds since the epoch of the last run.
    """

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)
    images: int = 0
    last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, seconds: float, *, failed: bool) -> None:
        """Count a request that was answered."""
        with self._lock:
            (self.fail if failed else self.success).add(seconds)

    def batch(self, record: BatchRecord) -> None:
        """Count a batch that ran."""
        if record.failed:
            return
        count = len(record.waited)
        with self._lock:
            self.queue.add(sum(record.waited), count)
            self.compute.add(record.seconds * count, count)
            self.batches.setdefault(record.images, Duration()).add(record.seconds)
            self.images += record.images
            self.last = int(time.time() * 1000)

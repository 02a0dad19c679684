"""What a benchmark found, as data: the form that records hold, and that tables, plots and answers are made from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .settings import KINDS, Settings
from .subject import Subject

__all__ = [
    "SCHEMA",
    "BenchReport",
    "Concurrent",
    "Latency",
    "Paced",
    "Peaks",
    "Point",
    "Preprocessing",
    "Speedup",
    "Window",
]

SCHEMA = 2


@dataclass(frozen=True)
class Speedup:
    """How many times faster than ``against``; ``low`` and ``high`` are None with too few rounds for an interval."""

    against: str
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds over every sample; p99 is None below 500 samples."""

    samples: int
    min_ms: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float | None
    max_ms: float


@dataclass(frozen=True)
class Window:
    """One of the consecutive parts of a measurement; records of schema 1 hold its median only."""

    p50_ms: float
    mean_ms: float | None = None
    p90_ms: float | None = None
    calls: int | None = None


@dataclass(frozen=True)
class Point:
    """One model at one batch size.

    Attributes:
        subject: Label.
        batch: Images per call.
        calls, rounds: Measured; a round is the same number of calls of each model in turn.
        seconds: Time inside those calls.
        p50_ms, p90_ms, p95_ms, p99_ms: End-to-end latency of a call, numpy in to numpy out, with the copies to and from a GPU;
            p99 is None below 500 calls. p95 is None in records of schema 1.
        mean_ms, min_ms, max_ms: Of every call.
        images_per_second: Images measured / ``seconds``: one call at a time, the next right after it.
        windows: The first, second and last third of the measurement.
        stable: Whether their medians are within 5 %; None if there were too few rounds to say.
        capped: Whether the time limit came before ``min_calls``.
        warmup_calls: Unmeasured calls before.
        speedup: Against the first baseline; None for a baseline itself and without one.
        further_speedups: Against each further baseline, in their order.
        device: Time on the GPU between two CUDA events, images and results on the GPU; None on a CPU.
        launched: How the work of those calls was launched: ``CUDA graph`` or ``eager launches``; None in older records.
        queued: Whether it was queued before the device came to it; if not, gaps between launches are in ``device``.
        gpu: What the driver said during this batch size (clocks, power, temperature, throttling, other processes), or None.
    """

    subject: str
    batch: int
    calls: int
    rounds: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float
    min_ms: float
    max_ms: float
    images_per_second: float
    windows: tuple[Window, ...]
    stable: bool | None
    capped: bool
    warmup_calls: int | None = None
    speedup: Speedup | None = None
    further_speedups: tuple[Speedup, ...] = ()
    device: Latency | None = None
    launched: str | None = None
    queued: bool | None = None
    gpu: dict[str, Any] | None = None


@dataclass(frozen=True)
class Concurrent:
    """Throughput of one model with several callers at once, each sending the next batch when its last is done."""

    subject: str
    batch: int
    streams: int
    calls: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Paced:
    """Latency of one model under load: requests come at their own times, and wait for one another.

    Attributes:
        subject, batch: Model, and images per request.
        rate, arrivals: Requests a second offered, and how they are spaced.
        achieved: Requests a second that were answered.
        busy: Share of the time that the model was at work.
        overloaded: Whether requests came faster than they were answered; the latencies then only say how long it was run.
        latency: From the time a request was due to its answer.
    """

    subject: str
    batch: int
    rate: float
    arrivals: str
    achieved: float
    busy: float
    overloaded: bool
    latency: Latency


@dataclass(frozen=True)
class Preprocessing:
    """Reading, decoding, resizing and normalising image files, one after another on one thread."""

    images: int
    ms_per_image: float


@dataclass(frozen=True)
class Peaks:
    """What this machine reached on the spot: the best of several large matrix products, and of several large copies."""

    device: str
    precision: str
    macs_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class BenchReport:
    """Everything a benchmark found.

    Attributes:
        subjects: What was measured.
        baseline: Label that speedups are against, or None; the first, if there are several.
        further_baselines: Labels of the others.
        points: One for each batch size and model, in that order.
        settings: How it was measured.
        images: What the images were, in words.
        environment: Where it was measured, see :mod:`.environment`.
        not_measured: What a reader might expect and this run did not measure.
        notes: What else to know.
        interrupted: Whether Ctrl-C ended it early; what was measured until then is in ``points``.
        concurrent, paced, preprocessing, peaks: Measured where they were asked for.
        command: What was typed, with file names in place of paths.
        suite: Name of the suite that this run belongs to, or empty.
        recorded: UTC time of the record it was read from, or empty.
    """

    subjects: tuple[Subject, ...]
    baseline: str | None
    points: tuple[Point, ...]
    settings: Settings
    images: str
    environment: dict[str, Any]
    not_measured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    concurrent: tuple[Concurrent, ...] = ()
    paced: tuple[Paced, ...] = ()
    preprocessing: Preprocessing | None = None
    peaks: tuple[Peaks, ...] = ()
    command: str = ""
    suite: str = ""
    recorded: str = ""
    further_baselines: tuple[str, ...] = ()
    schema: int = field(default=SCHEMA, init=False)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Labels of every baseline, the first in front."""
        return (*(() if self.baseline is None else (self.baseline,)), *self.further_baselines)

    @property
    def views(self) -> tuple[BenchReport, ...]:
        """The same once for each baseline, with that one alone; itself if it has no more than one."""
        if not self.further_baselines:
            return (self,)
        return tuple(self._against(label) for label in self.baselines)

    def _against(self, label: str) -> BenchReport:
        others = set(self.baselines) - {label}
        return dataclasses.replace(
            self,
            baseline=label,
            further_baselines=(),
            subjects=tuple(subject for subject in self.subjects if subject.label not in others),
            points=tuple(
                dataclasses.replace(
                    point,
                    speedup=next(
                        (s for s in (point.speedup, *point.further_speedups) if s and s.against == label), None
                    ),
                    further_speedups=(),
                )
                for point in self.points
                if point.subject not in others
            ),
        )

    @property
    def unstable(self) -> tuple[Point, ...]:
        """Points that did not settle, or were too short to tell."""
        return tuple(point for point in self.points if not point.stable)

    @property
    def stable(self) -> bool:
        """Whether everything that was asked for was measured and settled."""
        return not self.interrupted and bool(self.points) and not self.unstable

    def subject(self, label: str) -> Subject:
        """Return the subject with a label."""
        return next(subject for subject in self.subjects if subject.label == label)

    @property
    def baseline_kind(self) -> str | None:
        """The kind of the vanilla twin that a label of ours ends in, else the whole label of the baseline."""
        last = (self.baseline or "").rpartition(" ")[2]
        return last if last in KINDS else self.baseline

    def beside(self, point: Point) -> Point | None:
        """Return the baseline's point at the same batch size."""
        return next((p for p in self.points if (p.subject, p.batch) == (self.baseline, point.batch)), None)

    def of(self, label: str) -> tuple[Point, ...]:
        """Return the points of one subject, by batch size."""
        return tuple(sorted((p for p in self.points if p.subject == label), key=lambda point: point.batch))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; latencies in milliseconds."""
        document = dataclasses.asdict(self)
        del document["recorded"]  # whoever appends the record sets the time
        return {"schema": document.pop("schema"), "kind": "bench", "stable": self.stable, **document}

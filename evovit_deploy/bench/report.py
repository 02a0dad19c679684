"""What a benchmark found, as data; how it is shown is up to the caller."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["HEADER", "SCHEMA", "BenchReport", "Point", "Settings", "Speedup", "Subject", "lines", "rows"]

SCHEMA = 1
HEADER = ("batch", "model", "p50 ms", "p90 ms", "p99 ms", "img/s", "speedup", "stable")
MISSING = "—"


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        batches: Batch sizes.
        min_seconds: Time that each model is measured for at each batch size, at least.
        min_calls: Calls that each model is measured with at each batch size, at least.
        max_seconds: A point stops here even if ``min_calls`` is not reached.
        warmup_seconds, warmup_calls: Unmeasured runs before each point, both at least.
        confidence: Of the interval of the speedup.
    """

    batches: tuple[int, ...]
    min_seconds: float
    min_calls: int
    max_seconds: float
    warmup_seconds: float
    warmup_calls: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Subject:
    """A model that was measured; ``label`` is its name in the report."""

    label: str
    name: str
    backend: str
    device: str
    precision: str
    image_size: int
    input: str
    batch: int | None
    outputs: tuple[str, ...]
    family: str | None = None
    variant: str | None = None
    selection: str | None = None
    opset: int | None = None
    random_weights: bool | None = None

    @classmethod
    def of(cls, label: str, engine: Engine) -> Subject:
        """Describe an open engine."""
        spec, manifest = engine.spec, engine.spec.manifest or {}
        return cls(
            label,
            spec.name,
            engine.backend,
            engine.device,
            spec.precision,
            spec.image_size,
            spec.input,
            spec.batch,
            spec.outputs,
            family=manifest.get("family"),
            variant=manifest.get("variant") or None,
            selection=manifest.get("selection"),
            opset=manifest.get("opset"),
            random_weights=(manifest.get("weights") or {}).get("random"),
        )


@dataclass(frozen=True)
class Speedup:
    """Median latency of ``against`` divided by that of the model; ``low`` and ``high`` are None with too few rounds."""

    against: str
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Point:
    """One model at one batch size.

    Attributes:
        subject: Label.
        batch: Images a call.
        calls, rounds: Measured; a round is the same number of calls of each model in turn.
        seconds: Time inside those calls.
        p50_ms, p90_ms, p99_ms: Latency of a call; p99 is None below 500 calls.
        mean_ms, min_ms, max_ms: Of every call.
        images_per_second: Images measured / ``seconds``: one call at a time, the next right after it.
        windows_ms: Median of the first, second and last third of the measurement.
        stable: Whether those are within 5 %; None if there were too few rounds to say.
        capped: Whether the time limit came before ``min_calls``.
        speedup: Against the baseline; None for the baseline itself and without one.
    """

    subject: str
    batch: int
    calls: int
    rounds: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    mean_ms: float
    min_ms: float
    max_ms: float
    images_per_second: float
    windows_ms: tuple[float, ...]
    stable: bool | None
    capped: bool
    speedup: Speedup | None


@dataclass(frozen=True)
class BenchReport:
    """Everything a benchmark found.

    Attributes:
        subjects: What was measured.
        baseline: Label that speedups are against, or None.
        points: One for each batch size and model, in that order.
        settings: How it was measured.
        images: What the images were, in words.
        environment: Where it was measured, see :mod:`.environment`.
        not_measured: What a reader might expect and this run did not measure.
        notes: What else to know.
        interrupted: Whether Ctrl-C ended it early; what was measured until then is in ``points``.
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
    schema: int = field(default=SCHEMA, init=False)

    @property
    def unstable(self) -> tuple[Point, ...]:
        """Points that did not settle, or were too short to tell."""
        return tuple(point for point in self.points if not point.stable)

    @property
    def stable(self) -> bool:
        """Whether everything that was asked for was measured and settled."""
        return not self.interrupted and bool(self.points) and not self.unstable

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; latencies in milliseconds."""
        document = dataclasses.asdict(self)
        return {"schema": document.pop("schema"), "kind": "bench", "stable": self.stable, **document}


def rows(report: BenchReport) -> list[tuple[str, ...]]:
    """The table under :data:`HEADER`, as text: a row for each point."""
    return [
        (
            str(point.batch),
            point.subject,
            *(
                MISSING if value is None else _significant(value)
                for value in (point.p50_ms, point.p90_ms, point.p99_ms)
            ),
            f"{point.images_per_second:.0f}" if point.images_per_second >= 100 else f"{point.images_per_second:.1f}",
            _speedup(point, report.baseline),
            {True: "yes", False: "NO", None: "too short"}[point.stable],
        )
        for point in report.points
    ]


def lines(report: BenchReport) -> list[str]:
    """What belongs below the table: where and how, what was not measured, and why a value is to be doubted."""
    where, settings = report.environment, report.settings
    versions = where.get("versions", {})
    software = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "torch") if name in versions)
    threads = where.get("threads")
    devices = ", ".join(dict.fromkeys(subject.device for subject in report.subjects))
    calls = [point.calls for point in report.points]
    measured = " to ".join(dict.fromkeys(map(str, (min(calls), max(calls))))) if calls else "no"
    said = [
        f"on {devices}: {where.get('cpu')}, {'the default number of' if threads is None else threads} CPU "
        f"thread{'' if threads == 1 else 's'} of {where.get('physical_cores')} cores, {where.get('os')}, {software}, "
        f"load average {where.get('load_average')} at the start and {where.get('load_average_end')} at the end",
        f"models take turns in one run, one call at a time; {measured} calls a row, at least {settings.min_seconds:g} s "
        f"and {settings.min_calls} calls were wanted; latency is the whole call, numpy in to numpy out",
        f"images: {report.images}",
    ]
    if any(point.speedup for point in report.points):
        said.append(
            f"speedup: median latency of {report.baseline} / median latency, with its {settings.confidence:.0%} "
            f"interval (moving-block bootstrap over paired rounds)"
        )
    said += [f"note: {note}" for note in report.notes]
    for point in report.unstable:
        if point.stable is False:
            said.append(
                f"unstable: {point.subject} at batch {point.batch}: the medians of the three parts of the run are "
                f"{', '.join(_significant(value) for value in point.windows_ms)} ms, more than 5 % apart"
            )
    if any(point.p99_ms is None for point in report.points):
        said.append(f"{MISSING}: p99 needs 500 calls; raise --min-calls or --min-seconds")
    if any(point.capped for point in report.points):
        said.append(f"slow calls: {settings.max_seconds:g} s a row came before {settings.min_calls} calls")
    said += report.not_measured
    if report.interrupted:
        said.append("interrupted: only what was measured until then is shown")
    return said


def _speedup(point: Point, baseline: str | None) -> str:
    if point.subject == baseline:
        return "baseline"
    if point.speedup is None:
        return MISSING
    found = point.speedup
    interval = "too few rounds" if found.low is None or found.high is None else f"{found.low:.3f}, {found.high:.3f}"
    return f"{found.ratio:.3f} [{interval}]"


def _significant(value: float) -> str:
    """Milliseconds with at least three digits that mean something."""
    return f"{value:.{2 if value >= 10 else 3}f}"

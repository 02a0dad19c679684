"""A report as tables of text, for a terminal and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engines.registry import find
from .quantities import DEVICE_SPEEDUP, MISSING, MS, PER_SECOND, SPEEDUP, shown
from .report import BenchReport
from .statistics import P99_SAMPLES

__all__ = ["Table", "lines", "tables"]

WORDS = {
    *(
        "model",
        "candidate",
        "method",
        "front",
        "backend",
        "baseline",
        "speedup",
        "speedup [95% interval]",
        "stable",
        "launched",
    ),
    *("arrivals", "overloaded", "engine", "protocol", "overhead ms", "share", "scenario", "holds"),
    *("check", "what was found"),
    *("quantity", "verdict", "measured on", "smallest batch", "largest batch"),
}


@dataclass(frozen=True)
class Table:
    """Header and rows of text; ``group`` is the column at whose changes a line may be drawn, if any."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    group: int | None = 0

    def divides(self, above: tuple[str, ...] | None, row: tuple[str, ...]) -> bool:
        """Return whether a line may be drawn between a row and the one above it."""
        return above is not None and self.group is not None and above[self.group] != row[self.group]

    @property
    def left(self) -> tuple[str, ...]:
        """Columns that hold words rather than numbers."""
        return tuple(name for name in self.header if name in WORDS)


def tables(report: BenchReport) -> list[Table]:
    """Return the tables of a report: latency first, then what else was measured."""
    found = [_latency(report), *(_over(view) for view in report.views[1:])]
    if report.concurrent:
        rows: list[tuple[str, ...]] = [
            (str(c.batch), c.subject, str(c.streams), PER_SECOND.show(c.images_per_second), str(c.calls))
            for c in report.concurrent
        ]
        found.append(Table("Several callers at once", ("batch", "model", "callers", "img/s", "calls"), tuple(rows)))
    if report.paced:
        rows = [
            (
                str(p.batch),
                p.subject,
                f"{p.rate:g}",
                p.arrivals,
                f"{p.achieved:.3g}",
                f"{p.busy:.0%}",
                *(MS.show(value) for value in (p.latency.p50_ms, p.latency.p95_ms, p.latency.p99_ms)),
                "YES" if p.overloaded else "no",
            )
            for p in report.paced
        ]
        header = (
            "batch", "model", "requests/s", "arrivals", "answered/s", "busy", "p50 ms", "p95 ms", "p99 ms", "overloaded",
        )  # fmt: skip
        found.append(Table("Latency under load, from when a request was due", header, tuple(rows)))
    return found


def _latency(report: BenchReport) -> Table:
    rows = shown("text", ((report, point) for point in report.points))
    header = ("batch", "model", *(row.title() for row in rows))
    body = ((str(point.batch), point.subject, *(row.text(report, point) for row in rows)) for point in report.points)
    return Table("Latency, end to end", header, tuple(body))


def _pixels(report: BenchReport) -> str:
    return ", as uint8 pixels" if any(subject.input == "uint8" for subject in report.subjects) else ""


def _over(view: BenchReport) -> Table:
    """Speedups over a further baseline."""
    compared = [point for point in view.points if point.speedup]
    columns = [row for row in shown("text", ((view, point) for point in compared)) if row in (SPEEDUP, DEVICE_SPEEDUP)]
    header = ("batch", "model", *(row.title() for row in columns))
    body = ((str(point.batch), point.subject, *(row.text(view, point) for row in columns)) for point in compared)
    return Table(f"Over {view.baseline}", header, tuple(body))


def lines(report: BenchReport) -> list[str]:
    """Say what belongs below the tables: where and how, what was not measured, and why a value is to be doubted."""
    where, settings = report.environment, report.settings
    versions = where.get("versions", {})
    ran = [row.module for subject in report.subjects if (row := find(subject.backend)) is not None]
    named = dict.fromkeys(("onnxruntime", "torch", *ran))
    software = ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
    threads = f"{where['threads']} CPU threads" if where.get("threads") else "CPU threads chosen by the backend"
    gpus = "".join(f", {gpu['name']} (driver {gpu['driver']})" for gpu in where.get("gpus", ()))
    said = [
        f"{where['cpu']}, {where['physical_cores']} cores{gpus}, {threads}, {software}; load average "
        f"{where['load_average']} before, {where['load_average_end']} after",
        f"images: {report.images}{_pixels(report)}",
    ]
    if report.preprocessing is not None:
        found = report.preprocessing
        said.append(
            f"preprocessing: {found.ms_per_image:.2f} ms per image on one thread ({found.images} images), not part of the "
            f"latencies"
        )
    if any(point.speedup for point in report.points):
        said.append(
            f"speedup: latency of {' or '.join(report.baselines)} / latency, {settings.method}, with its "
            f"{settings.confidence:.0%} interval (moving-block bootstrap over paired rounds)"
        )
    said += [f"note: {note}" for note in report.notes]
    said += _facts(report) + _doubts(report)
    if not any(subject.facts.top1 is not None for subject in report.subjects):
        said.append("accuracy: not evaluated")
    said += report.not_measured
    if report.interrupted:
        said.append("interrupted: only what was measured until then is shown")
    return said


def _facts(report: BenchReport) -> list[str]:
    said = []
    for subject in report.subjects:
        f = subject.facts
        parts = [
            *([f"load {f.load_ms:.0f} ms"] if f.load_ms is not None else []),
            *([f"first call {f.first_ms:.0f} ms"] if f.first_ms is not None else []),
            *([f"memory {f.memory_mib:.0f} MiB"] if f.memory_mib is not None else []),
            *([f"{f.macs / 1e9:.3g} GMACs an image"] if f.macs is not None else []),
        ]
        if parts:
            said.append(f"{subject.label}: {', '.join(parts)}")
    return said


def _doubts(report: BenchReport) -> list[str]:
    settings, said = report.settings, []
    unstable = [
        f"{point.subject} at batch {point.batch} ({', '.join(MS.show(window.p50_ms) for window in point.windows)} ms)"
        for point in report.unstable
        if point.stable is False
    ]
    if unstable:
        said.append(
            f"unstable: the medians of the three parts of the run are more than 5 % apart: {'; '.join(unstable)}. Drift that "
            f"both models share cancels in the speedup, not in the milliseconds"
        )
    said += _device(report)
    for batch in {point.batch: None for point in report.points}:
        gpu = next((p.gpu for p in report.points if p.batch == batch and p.gpu), None)
        said += [f"batch {batch}: {text}" for text in _gpu(gpu or {})]
    if any(point.p99_ms is None for point in report.points):
        said.append(f"{MISSING}: p99 needs {P99_SAMPLES} calls; raise --min-calls and --max-seconds")
    if any(point.capped for point in report.points):
        said.append(f"slow calls: {settings.max_seconds:g} s per row came before {settings.min_calls} calls")
    warm = [point.warmup_calls for point in report.points if point.warmup_calls is not None]
    if warm and min(warm) < settings.warmup_calls:
        said.append(
            f"slow calls: the warm-up ended after {settings.warmup_limit:g} s with {min(warm)} calls instead of "
            f"{settings.warmup_calls}"
        )
    return said


def _device(report: BenchReport) -> list[str]:
    """How far times on the device are those of work."""
    timed = [point for point in report.points if point.device is not None]
    if any(point.launched is None for point in timed):
        return ["device time: of an older record, which does not say whether gaps between launches are in it"]
    gaps = [f"{point.subject} at batch {point.batch}" for point in timed if not point.queued]
    said = ["device time: of work that was queued before the device came to it, so without gaps between launches"]
    if gaps:
        said.append(f"gaps between launches are in the device time of {', '.join(gaps)}: it could not be queued ahead")
    return said if timed else []


def _gpu(seen: dict[str, Any]) -> list[str]:
    """What the driver said, and what of it is to be doubted."""
    units = (("sm_mhz", "SM clock", "MHz", 1), ("milliwatt", "power", "W", 1000), ("celsius", "temperature", "°C", 1))
    ranges = [
        f"{name} {seen[key][0] / scale:.0f} to {seen[key][1] / scale:.0f} {unit}"
        for key, name, unit, scale in units
        if key in seen
    ]
    said = [f"GPU {', '.join(ranges)}"] if ranges else []
    if seen.get("throttled"):
        said.append(f"the GPU was slowed down by {', '.join(seen['throttled'])}")
    if seen.get("other_processes"):
        said.append(f"{seen['other_processes']} other processes used the GPU")
    return said

"""`benchmark`: engines take turns in one run, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..engines.registry import find
from ..errors import EngineError, InputError
from ..machine.facts import environment, load_average
from . import gpu, statistics
from .device_time import DeviceTime, on_device
from .images import batch_of, seeded_images
from .pacing import paced
from .report import BenchReport, Concurrent, Paced, Point, Speedup
from .settings import Settings
from .streams import concurrent
from .subject import Opened
from .telemetry import Telemetry
from .turns import Clock, Progress, Turns, measure, warm_up

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["benchmark"]

Array = NDArray[Any]
# A batch size whose throughput is less than this above the best so far does not grow any more.
GROWTH = 1.03


def benchmark(
    engines: Mapping[str, Engine | Opened],
    settings: Settings | None = None,
    *,
    baseline: str | Sequence[str] | None = None,
    images: Array | None = None,
    described: str | None = None,
    threads: int | None = None,
    notes: Iterable[str] = (),
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    on_progress: Progress | None = None,
) -> BenchReport:
    """Measure latency and throughput of engines side by side.

    Args:
        engines: Label -> open engine, or an :class:`Opened` one with what is known of it beside speed; all with the same image
            size and input type.
        settings: Batch sizes, how long, and what beside latency; see :class:`Settings`.
        baseline: Label that speedups are against, or several; None measures without.
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8, repeated to fill a batch; seeded ones if None.
        described: What ``images`` are, in words.
        threads: What the engines were opened with, for the report.
        notes: To carry in the report.
        clock, sleep: Seconds, monotonic; replace them together with ``FakeEngine(sleep=...)`` to test without waiting.
        on_progress: Called between turns, never inside a measured call.

    Returns:
        The report. Ctrl-C during the measurement ends it early and returns what there is, marked ``interrupted``.

    Raises:
        InputError: Engines that cannot be compared, or batch sizes that one of them does not take.
        EngineError: An engine failed.
    """
    settings = settings or Settings()
    opened = {label: one if isinstance(one, Opened) else Opened.of(one) for label, one in engines.items()}
    subjects = {label: one.but(label=label) for label, one in opened.items()}
    runnable = {label: one.engine for label, one in subjects.items()}
    against = () if baseline is None else (baseline,) if isinstance(baseline, str) else tuple(baseline)
    _check(runnable, settings.batches, against)
    first = next(iter(runnable.values()))
    if images is None:
        images, described = seeded_images(first.spec, max(settings.batches), settings.seed)
    else:
        first.check(images)
    run = _SubjectRun(runnable, settings, against, clock, sleep, on_progress or (lambda share, text: None))
    where = environment(threads, [row.module for engine in runnable.values() if (row := find(engine.backend))])
    interrupted, stopped = False, list[str]()
    try:
        for batch in settings.batches:
            try:
                run.batch(batch, batch_of(images, batch))
            except EngineError as error:
                if not (settings.until_flat and run.points):
                    raise
                # Looking for the largest useful batch, running out of memory is an answer.
                stopped.append(f"ended at batch {batch}: {error}")
                break
            if settings.until_flat and _flat(run.points, batch):
                break
    except KeyboardInterrupt:
        interrupted = True
    run.tell(1.0, "done")
    on_gpu = any(engine.device.startswith("cuda") for engine in runnable.values())
    return BenchReport(
        subjects=tuple(one.subject for one in subjects.values()),
        baseline=against[0] if against else None,
        further_baselines=against[1:],
        points=tuple(run.points),
        settings=settings,
        images=described or f"{len(images)} of the caller's, the same for every model",
        environment={**where, "load_average_end": load_average()},
        not_measured=() if on_gpu else ("GPU: not measured",),
        notes=(*notes, *stopped),
        interrupted=interrupted,
        concurrent=tuple(run.concurrent),
        paced=tuple(run.paced),
    )


class _SubjectRun:
    """One run over all batch sizes; holds what was measured so far, also when it is interrupted."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        settings: Settings,
        baselines: tuple[str, ...],
        clock: Clock,
        sleep: Callable[[float], None],
        tell: Progress,
    ) -> None:
        self.engines, self.settings, self.baselines = engines, settings, baselines
        self.clock, self.sleep, self.tell = clock, sleep, tell
        self.points: list[Point] = []
        self.concurrent: list[Concurrent] = []
        self.paced: list[Paced] = []
        self._done = 0
        extra = len(settings.streams) + (settings.rate is not None)
        self._steps = len(settings.batches) * (1 + extra * len(engines))
        device = next((e.device for e in engines.values() if e.device.startswith("cuda")), "cpu")
        self._telemetry = Telemetry.open(device)

    def batch(self, batch: int, images: Array) -> None:
        """Measure one batch size."""
        runs = {label: gpu.end_to_end(engine, images) for label, engine in self.engines.items()}
        turns = Turns({label: [] for label in self.engines})
        device: dict[str, DeviceTime] = {}
        try:
            calls = warm_up(runs, self.settings, turns, self.clock, partial(self._step, batch))
            measure(runs, calls, self.settings, turns, self.clock, partial(self._step, batch))
            device = on_device(self.engines, images, turns.rounds, calls)
        finally:
            if turns.rounds:
                summary = self._telemetry.summary() if self._telemetry is not None else None
                self.points += _points(turns, batch, self.baselines, self.settings, device, summary)
        self._done += 1
        for label, engine in self.engines.items():
            for streams in self.settings.streams:
                self._step(batch, 0.0, f"{label}, {streams} at once")
                make = partial(gpu.end_to_end, engine, images)
                seconds = self.settings.min_seconds
                self.concurrent.append(
                    concurrent(make, label, batch, streams, seconds, clock=self.clock, wait=self.sleep)
                )
                self._done += 1
            if self.settings.rate is not None:

                def told(share: float, label: str = label) -> None:
                    self._step(batch, share, f"{label}, {self.settings.rate:g} requests per second")

                self.paced.append(
                    paced(runs[label], label, batch, self.settings, clock=self.clock, sleep=self.sleep, tell=told)
                )
                self._done += 1

    def _step(self, batch: int, share: float, text: str) -> None:
        if self._telemetry is not None:
            self._telemetry.sample()
        self.tell((self._done + share) / self._steps, f"batch {batch}: {text}")


def _flat(points: list[Point], batch: int) -> bool:
    """Whether no model's throughput at ``batch`` is above its best at smaller batch sizes."""
    before = [p for p in points if p.batch != batch]
    if not before:
        return False
    for point in (p for p in points if p.batch == batch):
        best = max(p.images_per_second for p in before if p.subject == point.subject)
        if point.images_per_second > best * GROWTH:
            return False
    return True


def _points(
    turns: Turns,
    batch: int,
    baselines: tuple[str, ...],
    settings: Settings,
    device: Mapping[str, DeviceTime],
    summary: dict[str, Any] | None,
) -> list[Point]:
    """Statistics of one batch size."""
    points = []
    for label in turns.seconds:
        seconds = turns.of(label)
        found, timed = statistics.latency(seconds), device.get(label)
        parts = statistics.windows_of(seconds)
        speedups = [
            Speedup(
                baseline,
                *statistics.speedup_interval(
                    turns.of(baseline), seconds, confidence=settings.confidence, seed=settings.seed
                ),
            )
            for baseline in (() if label in baselines else baselines)
        ]
        total = float(seconds.sum())
        points.append(
            Point(
                subject=label,
                batch=batch,
                calls=seconds.size,
                rounds=len(seconds),
                seconds=total,
                p50_ms=found.p50_ms,
                p90_ms=found.p90_ms,
                p95_ms=found.p95_ms,
                p99_ms=found.p99_ms,
                mean_ms=found.mean_ms,
                min_ms=found.min_ms,
                max_ms=found.max_ms,
                images_per_second=batch * seconds.size / total,
                windows=parts,
                stable=statistics.stable(tuple(part.p50_ms for part in parts)),
                capped=seconds.size < settings.min_calls,
                warmup_calls=turns.warmup_calls,
                speedup=speedups[0] if speedups else None,
                further_speedups=tuple(speedups[1:]),
                device=None if timed is None else timed.latency,
                launched=None if timed is None else timed.launched,
                queued=None if timed is None else timed.queued,
                gpu=summary,
            )
        )
    return points


def _check(engines: Mapping[str, Engine], batches: tuple[int, ...], baselines: tuple[str, ...]) -> None:
    """Raise InputError for anything that could not be compared."""
    if not engines:
        raise InputError("there is nothing to measure: give at least one engine.")
    for baseline in baselines:
        if baseline not in engines:
            raise InputError(f"the baseline {baseline!r} is not among the engines: {', '.join(engines)}.")
    if len(set(baselines)) < len(baselines):
        raise InputError(f"a baseline is given twice: {', '.join(baselines)}. Give each once.")
    (first, reference), *others = engines.items()
    for label, engine in others:
        for what, name in (("image_size", "image size"), ("input", "input type")):
            a, b = getattr(reference.spec, what), getattr(engine.spec, what)
            if a != b:
                raise InputError(
                    f"{first} and {label} cannot be compared: {name} {a} and {b}. Different images are different work; "
                    f"export both with the same --img-size and --input."
                )
    for label, engine in engines.items():
        static, largest = engine.spec.batch, engine.spec.max_batch
        smallest = getattr(engine, "min_batch", 1)
        for batch in batches:
            if static is not None and batch != static:
                raise InputError(
                    f"{label} takes batches of {static} only, not {batch}: padding would be measured as work. Use "
                    f"--batch {static}, or export it with --batch dynamic."
                )
            if largest is not None and batch > largest:
                raise InputError(
                    f"{label} takes at most {largest} images in one run, not {batch}. Use smaller batches, or build it with "
                    f"--max-batch {batch}."
                )
            if batch < smallest:
                raise InputError(
                    f"{label} takes at least {smallest} images in one run, not {batch}: padding would be measured as work. "
                    f"Use larger batches, or build it with --min-batch {batch}."
                )

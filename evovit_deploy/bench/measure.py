"""`benchmark`: engines take turns in one run, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import statistics
from .environment import environment, load_average
from .images import batch_of, seeded_images
from .report import BenchReport, Point, Settings, Speedup, Subject

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["Progress", "benchmark", "measure", "warm_up"]

Array = NDArray[Any]
Clock = Callable[[], float]
Runs = Mapping[str, Callable[[], Any]]
# Called between measured calls with the share done (0 to 1) and what is going on.
Progress = Callable[[float, str], None]

WARMUP_SECONDS = 0.5
WARMUP_CALLS = 3
# A turn is as many calls as fit: long enough that caches belong to the model whose turn it is, short enough for hundreds.
TURN_SECONDS = 0.05
MIN_TURNS = 40
MAX_TURN_CALLS = 64
MAX_SECONDS = 30.0


@dataclass
class Turns:
    """Latencies of one batch size: model -> R turns of k calls, seconds; every model has the same R and k."""

    seconds: dict[str, list[list[float]]]

    @property
    def rounds(self) -> int:
        """Rounds that every model finished."""
        return min(len(turns) for turns in self.seconds.values())

    def of(self, label: str) -> Array:
        """[R, k] of one model, rounds that every model finished."""
        return np.array(self.seconds[label][: self.rounds])


def benchmark(
    engines: Mapping[str, Engine],
    *,
    batches: Iterable[int] = (1, 8),
    min_seconds: float = 10.0,
    min_calls: int = 100,
    baseline: str | None = None,
    images: Array | None = None,
    threads: int | None = None,
    seed: int = 0,
    notes: Iterable[str] = (),
    clock: Clock = time.perf_counter,
    on_progress: Progress | None = None,
) -> BenchReport:
    """Measure latency and throughput of engines side by side.

    Args:
        engines: Label -> open engine, all with the same image size and input type.
        batches: Batch sizes.
        min_seconds: Time to measure each engine for at each batch size, at least, seconds.
        min_calls: Calls of each engine at each batch size, at least; slow ones stop at three times ``min_seconds``, or
            30 s if that is longer.
        baseline: Label that speedups are against; None measures without.
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8, repeated to fill a batch; seeded ones if None.
        threads: What the engines were opened with, for the report.
        seed: Of the images and of the interval.
        notes: To carry in the report.
        clock: Seconds, monotonic; replace it together with ``FakeEngine(sleep=...)`` to test without waiting.
        on_progress: Called between turns, never inside a measured call.

    Returns:
        The report. Ctrl-C during the measurement ends it early and returns what there is, marked ``interrupted``.

    Raises:
        InputError: Engines that cannot be compared, or batch sizes that one of them does not take.
        EngineError: An engine failed.
    """
    batches = tuple(batches)
    _check(engines, batches, min_seconds, min_calls, baseline)
    settings = Settings(
        batches, min_seconds, min_calls, max(3 * min_seconds, MAX_SECONDS), WARMUP_SECONDS, WARMUP_CALLS
    )
    first = next(iter(engines.values()))
    if images is None:
        pool, described = seeded_images(first.spec, max(batches), seed)
    else:
        first.check(images)
        pool, described = images, f"{len(images)} of the caller's, the same for every model"
    where = environment(threads)
    tell = on_progress or (lambda share, text: None)
    points: list[Point] = []
    interrupted = False
    for index, batch in enumerate(batches):
        given = batch_of(pool, batch)
        runs = {label: partial(engine, given) for label, engine in engines.items()}
        turns = Turns({label: [] for label in engines})

        def point_progress(share: float, text: str, index: int = index, batch: int = batch) -> None:
            tell((index + share) / len(batches), f"batch {batch}: {text}")

        try:
            calls = warm_up(runs, settings, clock, point_progress)
            measure(runs, calls, settings, turns, clock, point_progress)
        except KeyboardInterrupt:
            interrupted = True
        if turns.rounds:
            points += _points(turns, batch, baseline, settings, seed)
        if interrupted:
            break
    on_gpu = any(engine.device.startswith("cuda") for engine in engines.values())
    return BenchReport(
        subjects=tuple(Subject.of(label, engine) for label, engine in engines.items()),
        baseline=baseline,
        points=tuple(points),
        settings=settings,
        images=described,
        environment={**where, "load_average_end": load_average()},
        not_measured=("accuracy: not evaluated",) + (() if on_gpu else ("GPU: not measured",)),
        notes=tuple(notes),
        interrupted=interrupted,
    )


def warm_up(runs: Runs, settings: Settings, clock: Clock, tell: Progress) -> int:
    """Run every model unmeasured, in turn, until all had their warm-up; returns the calls that make a turn."""
    seen: dict[str, list[float]] = {label: [] for label in runs}
    spent = dict.fromkeys(runs, 0.0)
    calls = 0
    while min(spent.values()) < settings.warmup_seconds or calls < settings.warmup_calls:
        for label, run in runs.items():
            start = clock()
            run()
            seconds = clock() - start
            seen[label].append(seconds)
            spent[label] += seconds
        calls += 1
        tell(0.0, "warming up")
    # The first calls allocate and choose kernels, so the median counts.
    slowest = max(float(np.median(latencies)) for latencies in seen.values())
    turn = min(TURN_SECONDS, settings.min_seconds / MIN_TURNS)
    return max(1, min(MAX_TURN_CALLS, int(turn / slowest) if slowest > 0 else 1))


def measure(runs: Runs, calls: int, settings: Settings, turns: Turns, clock: Clock, tell: Progress) -> None:
    """Let the models take turns of ``calls`` calls until all have enough; adds to ``turns``, also when interrupted."""
    spent = dict.fromkeys(runs, 0.0)
    count = 0
    while True:
        for label, run in runs.items():
            turn = []
            for _ in range(calls):
                start = clock()
                run()
                turn.append(clock() - start)
            turns.seconds[label].append(turn)
            spent[label] += sum(turn)
        count += calls
        by_time = min(spent.values()) / settings.min_seconds if settings.min_seconds else 1.0
        enough = min(by_time, count / settings.min_calls)
        limit = min(max(spent.values()) / settings.max_seconds, turns.rounds / statistics.MIN_ROUNDS)
        tell(min(1.0, max(enough, limit)), f"{count} calls of each model")
        if enough >= 1 or limit >= 1:
            return


def _points(turns: Turns, batch: int, baseline: str | None, settings: Settings, seed: int) -> list[Point]:
    """Statistics of one batch size."""
    points = []
    for label in turns.seconds:
        seconds = turns.of(label)
        total, ms = float(seconds.sum()), 1000 * seconds
        medians = statistics.windows(ms)
        speedup = None
        if baseline is not None and label != baseline:
            ratio, low, high = statistics.speedup_interval(
                turns.of(baseline), seconds, confidence=settings.confidence, seed=seed
            )
            speedup = Speedup(baseline, ratio, low, high)
        points.append(
            Point(
                subject=label,
                batch=batch,
                calls=seconds.size,
                rounds=len(seconds),
                seconds=total,
                p50_ms=float(np.median(ms)),
                p90_ms=float(np.percentile(ms, 90)),
                p99_ms=statistics.percentile(ms, 99),
                mean_ms=float(ms.mean()),
                min_ms=float(ms.min()),
                max_ms=float(ms.max()),
                images_per_second=batch * seconds.size / total,
                windows_ms=medians,
                stable=statistics.stable(medians),
                capped=seconds.size < settings.min_calls,
                speedup=speedup,
            )
        )
    return points


def _check(
    engines: Mapping[str, Engine], batches: tuple[int, ...], min_seconds: float, min_calls: int, baseline: str | None
) -> None:
    """Raise InputError for anything that could not be measured or compared."""
    if not engines:
        raise InputError("there is nothing to measure: give at least one engine.")
    if baseline is not None and baseline not in engines:
        raise InputError(f"the baseline {baseline!r} is not among the engines: {', '.join(engines)}.")
    if not batches or min(batches) < 1 or len(set(batches)) != len(batches):
        raise InputError(f"batch sizes {list(batches)}; give different numbers from 1, for example 1,8.")
    if min_seconds < 0 or min_calls < 1:
        raise InputError(f"min_seconds is {min_seconds:g} and min_calls {min_calls}; they are at least 0 and 1.")
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
        for batch in batches:
            if static is not None and batch != static:
                raise InputError(
                    f"{label} takes batches of {static} only, not {batch}: padding would be measured as work. Use "
                    f"--batch {static}, or export it with --batch dynamic."
                )
            if largest is not None and batch > largest:
                raise InputError(
                    f"{label} takes at most {largest} images in one run, not {batch}. Use smaller batches."
                )

"""`benchmark` on engines whose latency is known and a clock that only they move."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from evovit_deploy.bench import BenchReport, Point, Settings, benchmark
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import EngineError, InputError


def engine(clock: Any, latency: float | Iterable[float], **other: object) -> FakeEngine:
    return FakeEngine(latency=latency, sleep=clock.advance, **other)  # type: ignore[arg-type]


def point(report: BenchReport, subject: str, batch: int) -> Point:
    return next(p for p in report.points if (p.subject, p.batch) == (subject, batch))


def test_known_latencies(clock: Any) -> None:
    engines = {"evo": engine(clock, 0.002), "deit": engine(clock, 0.003)}
    report = benchmark(engines, Settings(batches=(1, 4), min_seconds=2, min_calls=100), baseline="deit", clock=clock)
    assert [(p.batch, p.subject) for p in report.points] == [(1, "evo"), (1, "deit"), (4, "evo"), (4, "deit")]
    evo = point(report, "evo", 4)
    assert evo.p50_ms == pytest.approx(2)
    assert evo.p90_ms == pytest.approx(2)
    assert evo.p99_ms == pytest.approx(2)
    assert evo.images_per_second == pytest.approx(2000)
    assert evo.seconds >= 2
    assert evo.calls >= 1000
    assert evo.stable is True
    assert not evo.capped
    assert evo.speedup is not None
    assert evo.speedup.against == "deit"
    assert evo.speedup.ratio == pytest.approx(1.5)
    assert evo.speedup.low == pytest.approx(1.5)
    assert evo.speedup.high == pytest.approx(1.5)
    assert point(report, "deit", 4).speedup is None
    assert report.stable


def test_percentiles_of_a_known_distribution(clock: Any) -> None:
    """Every tenth call takes ten times as long: p90 is just at the slow calls and the mean feels them."""
    report = benchmark(
        {"a": engine(clock, itertools.cycle([0.001] * 8 + [0.010] * 2))},
        Settings(batches=(1,), min_seconds=3),
        clock=clock,
    )
    found = report.points[0]
    assert found.p50_ms == pytest.approx(1)
    assert found.p90_ms == pytest.approx(10)
    assert found.max_ms == pytest.approx(10)
    assert found.min_ms == pytest.approx(1)
    assert found.mean_ms == pytest.approx(2.8, rel=0.02)


def test_models_take_turns(clock: Any) -> None:
    order: list[str] = []

    def logging(name: str) -> FakeEngine:
        return engine(clock, 0.125, fail=lambda: order.append(name))

    report = benchmark(
        {"a": logging("a"), "b": logging("b")}, Settings(batches=(2,), min_seconds=1, min_calls=20), clock=clock
    )
    assert report.points[0].warmup_calls == 50  # 6.25 s of 125 ms calls
    assert len(order) == 2 * (50 + report.points[0].calls)
    measured = order[2 * 50 :]
    assert measured[:8] == ["a", "b", "b", "a"] * 2
    assert measured.count("a") == measured.count("b")


def test_a_drift_favours_neither_of_two_equal_models(clock: Any) -> None:
    """Calls become slower by 1 % from one to the next; whoever always came first would seem faster by 1 %."""
    seconds = (0.01 * 1.01**i for i in itertools.count())
    engines = {name: engine(clock, seconds) for name in ("a", "b")}
    settings = Settings(batches=(1,), min_seconds=1, min_calls=20, warmup_limit=0.1, max_seconds=3)
    found = benchmark(engines, settings, baseline="b", clock=clock).points[0].speedup
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 1 <= found.high
    assert found.ratio == pytest.approx(1, abs=0.001)


def test_warm_up_is_not_measured(clock: Any) -> None:
    slow_start = itertools.chain([0.2] * 49, itertools.repeat(0.05))
    report = benchmark(
        {"a": engine(clock, slow_start)}, Settings(batches=(1,), min_seconds=1, min_calls=20), clock=clock
    )
    assert report.points[0].max_ms == pytest.approx(50)


@pytest.mark.parametrize(
    ("latency", "calls"),
    [(0.001, 500), (0.1, 50), (1.0, 10), (30.0, 3)],  # 500 ms; 50 calls; 10 s; never fewer than three
)
def test_warm_up_is_50_calls_and_half_a_second_or_its_limit(clock: Any, latency: float, calls: int) -> None:
    fake = engine(clock, latency)
    report = benchmark({"a": fake}, Settings(batches=(1,), min_seconds=1, min_calls=6), clock=clock)
    assert report.points[0].warmup_calls == pytest.approx(calls, abs=1)
    assert len(fake.batches) == report.points[0].warmup_calls + report.points[0].calls


def test_drift_is_marked_unstable(clock: Any) -> None:
    drifting = (0.010 * 1.001**i for i in itertools.count())
    report = benchmark({"a": engine(clock, drifting)}, Settings(batches=(1,), min_seconds=2, min_calls=20), clock=clock)
    assert report.points[0].stable is False
    assert [w.calls for w in report.points[0].windows] == sorted(
        (w.calls for w in report.points[0].windows), reverse=True
    )
    assert report.unstable == report.points
    assert not report.stable


def test_shared_disturbance_does_not_touch_the_speedup(clock: Any) -> None:
    """The machine slows down by half in the middle of the run; both models feel it, their ratio does not."""

    class Machine:
        def latency(self, base: float) -> Iterator[float]:
            while True:
                yield base * (1.5 if clock.now > 5 else 1.0)

    machine = Machine()
    engines = {"evo": engine(clock, machine.latency(0.004)), "deit": engine(clock, machine.latency(0.005))}
    report = benchmark(engines, Settings(batches=(1,), min_seconds=5, min_calls=100), baseline="deit", clock=clock)
    evo = report.points[0]
    assert evo.stable is False
    assert evo.speedup is not None
    assert evo.speedup.ratio == pytest.approx(1.25)
    assert evo.speedup.low == pytest.approx(1.25, abs=0.02)


def test_the_interval_is_narrow_and_right_on_a_noisy_machine(clock: Any) -> None:
    """Calls vary by 8 %, the machine slows down by 40 % over the run, and slow calls come in bursts that both models feel."""
    random = np.random.default_rng(5)

    def latency(base: float) -> Iterator[float]:
        while True:
            drift = 1 + 0.4 * clock.now / 40
            burst = 1.5 if int(clock.now) % 7 == 0 else 1.0
            yield base * drift * burst * random.lognormal(0, 0.08)

    engines = {"evo": engine(clock, latency(0.3)), "deit": engine(clock, latency(0.45))}
    settings = Settings(batches=(8,), min_seconds=20, min_calls=40, warmup_limit=2)
    report = benchmark(engines, settings, baseline="deit", clock=clock)
    evo = report.points[0]
    assert evo.stable is False  # the latencies themselves did drift
    assert evo.speedup is not None
    assert evo.speedup.low is not None
    assert evo.speedup.high is not None
    assert evo.speedup.low < 1.5 < evo.speedup.high
    assert (evo.speedup.high - evo.speedup.low) / evo.speedup.ratio < 0.1


def test_throughput_that_stops_growing_ends_the_run(clock: Any) -> None:
    class Saturating(FakeEngine):
        def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
            clock.advance(0.01 * max(1, len(images) / 4))
            return {"logits": np.zeros((len(images), 10), np.float32)}

    settings = Settings(batches=(1, 2, 4, 8, 16, 32), min_seconds=0.5, min_calls=1, until_flat=True)
    report = benchmark({"a": Saturating()}, settings, clock=clock)
    assert [p.batch for p in report.points] == [1, 2, 4, 8]


def test_running_out_of_memory_ends_the_search_and_keeps_the_rest(clock: Any) -> None:
    def fail() -> None:
        if len(fake.batches) > 60:
            raise EngineError("out of memory")

    fake = engine(clock, 0.01, fail=fail)
    settings = Settings(batches=(1, 2, 4), min_seconds=0.1, min_calls=1, until_flat=True)
    report = benchmark({"a": fake}, settings, clock=clock)
    assert [p.batch for p in report.points] == [1]
    assert report.notes == ("ended at batch 2: out of memory",)
    fake.batches.clear()
    with pytest.raises(EngineError, match="out of memory"):
        benchmark({"a": fake}, Settings(batches=(1, 2, 4), min_seconds=0.1, min_calls=1), clock=clock)


def test_pacing_and_callers_are_measured_for_each_model_and_batch(clock: Any) -> None:
    engines = {"a": engine(clock, 0.01), "b": engine(clock, 0.02)}
    settings = Settings(batches=(1, 2), min_seconds=0.5, min_calls=1, rate=20.0, arrivals="constant")
    shares: list[float] = []
    report = benchmark(
        engines, settings, clock=clock, sleep=clock.advance, on_progress=lambda share, text: shares.append(share)
    )
    assert [(p.batch, p.subject) for p in report.paced] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert [p.latency.p50_ms for p in report.paced] == pytest.approx([10, 20, 10, 20])
    assert shares == sorted(shares)


def test_slow_calls_stop_at_the_time_limit(clock: Any) -> None:
    report = benchmark({"a": engine(clock, 2.0)}, Settings(batches=(1,)), clock=clock)
    found = report.points[0]
    assert found.calls == 30
    assert found.capped
    assert found.p99_ms is None
    report = benchmark({"a": engine(clock, 20.0)}, Settings(batches=(1,), min_seconds=10, min_calls=100), clock=clock)
    assert report.points[0].calls == 6  # the fewest that an interval can be made of


def test_ctrl_c_keeps_what_was_measured(clock: Any) -> None:
    calls = itertools.count()

    def interrupt() -> None:
        if next(calls) == 350:
            raise KeyboardInterrupt

    engines = {"a": engine(clock, 0.05, fail=interrupt), "b": engine(clock, 0.05)}
    report = benchmark(engines, Settings(batches=(1, 2, 4), min_seconds=10, min_calls=20), baseline="b", clock=clock)
    assert report.interrupted
    assert not report.stable
    assert [(p.batch, p.subject) for p in report.points] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert len({p.calls for p in report.points if p.batch == 2}) == 1
    assert json.loads(json.dumps(report.to_dict()))["interrupted"] is True


def test_ctrl_c_before_anything_was_measured(clock: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    report = benchmark({"a": engine(clock, 0.05, fail=interrupt)}, clock=clock)
    assert report.interrupted
    assert report.points == ()


def test_progress_only_grows_to_one(clock: Any) -> None:
    seen: list[float] = []
    benchmark(
        {"a": engine(clock, 0.01)},
        Settings(batches=(1, 2), min_seconds=1),
        clock=clock,
        on_progress=lambda share, text: seen.append(share),
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_all_models_get_the_same_images(clock: Any) -> None:
    seen: dict[str, np.ndarray] = {}

    def logits(name: str) -> FakeEngine:
        def run(images: np.ndarray) -> np.ndarray:
            seen[name] = images
            return np.zeros((len(images), 10), np.float32)

        return engine(clock, 0.1, logits=run)

    benchmark({"a": logits("a"), "b": logits("b")}, Settings(batches=(20,), min_seconds=0.5, min_calls=1), clock=clock)
    assert np.array_equal(seen["a"], seen["b"])
    assert len(np.unique(seen["a"].reshape(20, -1), axis=0)) == 16


def test_images_of_the_caller(clock: Any) -> None:
    fake = engine(clock, 0.1)
    images = np.zeros((2, 3, 8, 8), np.float32)
    report = benchmark({"a": fake}, Settings(batches=(3,), min_seconds=0.5, min_calls=1), images=images, clock=clock)
    assert set(fake.batches) == {3}
    assert report.images.startswith("2 of the caller's")
    with pytest.raises(InputError, match="takes normalised float32"):
        benchmark({"a": fake}, images=images.astype(np.float64), clock=clock)


def test_importing_bench_loads_nothing_heavy() -> None:
    code = "import sys, evovit_deploy.bench; print([m for m in ('torch', 'onnx', 'onnxruntime', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

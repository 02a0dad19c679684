"""Times on a device, on a simulated queue: the host launches kernels one by one, the device works them off in order."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy.bench import Settings, benchmark
from evovit_deploy.bench.answers import answers
from evovit_deploy.bench.costs import open_measured
from evovit_deploy.bench.device_time import EAGER, GRAPH, CudaTimer, DeviceCall, device_call, device_times, on_device
from evovit_deploy.bench.markdown import figures
from evovit_deploy.bench.reading import parse
from evovit_deploy.bench.report import BenchReport, Latency, Speedup
from evovit_deploy.bench.summary import summary
from evovit_deploy.bench.text import lines, tables
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import FakeEngine, TorchEngine
from evovit_deploy.errors import EngineError
from evovit_deploy.models.options import ModelOptions
from tests.bench.made import MICRO, point, report, subject
from tests.engines.fake_trt import FakeDevice


class Queue:
    """A host and a device, seconds on one clock; a timer as :mod:`evovit_deploy.bench.device_time` takes it."""

    def __init__(self, *, holds: bool = True) -> None:
        self.host = self.device = 0.0
        self.holds, self.held = holds, list[float]()

    def kernel(self, work: float, launch: float = 20e-6) -> None:
        self.host += launch
        self.device = max(self.device, self.host) + work

    def event(self) -> Event:
        return Event(self)

    def wait(self) -> None:
        self.host = max(self.host, self.device) + 0.01  # waiting is not part of it

    def hold(self, seconds: float) -> None:
        self.held.append(seconds)
        if self.holds:
            self.kernel(seconds)

    def now(self) -> float:
        return self.host


class Event:
    def __init__(self, queue: Queue) -> None:
        self._queue, self.at = queue, 0.0

    def record(self) -> None:
        self.at = max(self._queue.device, self._queue.host)

    def query(self) -> bool:
        return self.at <= self._queue.host

    def elapsed_time(self, later: Event) -> float:
        return 1000 * (later.at - self.at)


def eager(queue: Queue, kernels: int, work: float) -> DeviceCall:
    def run() -> None:
        for _ in range(kernels):
            queue.kernel(work)

    return DeviceCall(run, EAGER)


def test_gaps_between_launches_are_not_in_it() -> None:
    """100 kernels of 5 us that take 20 us each to launch: 2 ms in an empty queue, half a millisecond of work."""
    queue = Queue()
    found = device_times({"a": eager(queue, 100, 5e-6)}, rounds=3, turn=4, timer=queue)["a"]
    assert (found.launched, found.queued, found.latency.samples) == (EAGER, True, 12)
    assert found.latency.min_ms == pytest.approx(0.5)
    assert found.latency.max_ms == pytest.approx(0.5)


def test_where_nothing_can_be_held_the_gaps_are_said_to_be_in_it() -> None:
    queue = Queue(holds=False)
    found = device_times({"a": eager(queue, 100, 5e-6)}, rounds=3, turn=4, timer=queue)["a"]
    assert not found.queued
    assert found.latency.p50_ms == pytest.approx(2.0, rel=0.02)
    assert found.latency.samples == 12
    assert len(queue.held) < 12  # it is given up


def test_an_engine_that_waits_is_not_held_for_long() -> None:
    queue = Queue()

    def run() -> None:
        queue.kernel(1e-3)
        queue.wait()

    found = device_times({"a": DeviceCall(run, GRAPH)}, rounds=20, turn=5, timer=queue)["a"]
    assert not found.queued
    assert len(queue.held) < 20
    assert max(queue.held) <= 0.05


def test_a_host_that_is_slow_at_times_costs_those_calls_only() -> None:
    queue, calls = Queue(), iter(range(1000))

    def run() -> None:
        if next(calls) % 10 == 5:
            queue.host += 0.004  # something else had the processor
        for _ in range(10):
            queue.kernel(5e-6)

    found = device_times({"a": DeviceCall(run, EAGER)}, rounds=10, turn=4, timer=queue)["a"]
    assert found.queued
    assert found.latency.max_ms == pytest.approx(0.05)


def test_each_round_goes_the_other_way_round() -> None:
    queue, order = Queue(), list[str]()
    calls = {name: DeviceCall(lambda name=name: order.append(name), GRAPH) for name in "ab"}  # type: ignore[misc]
    device_times(calls, rounds=2, turn=2, timer=queue)
    assert order[-8:] == ["a", "a", "b", "b", "b", "b", "a", "a"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)


def torch_engine(compiled: bool = False) -> TorchEngine:
    return TorchEngine.from_checkpoint(random_checkpoint(MICRO), ModelOptions(), provider="cpu", compiled=compiled)


def test_there_is_none_on_a_cpu_and_on_a_stream_of_its_own(images: np.ndarray) -> None:
    assert device_call(torch_engine(), images) is None
    assert device_call(FakeEngine(image_size=32), images, FakeDevice()) is None
    assert on_device({"a": FakeEngine(image_size=32)}, images, 1, 1) == {}


def test_an_eager_module_is_recorded(images: np.ndarray) -> None:
    device, engine = FakeDevice(), torch_engine()
    seen: list[Any] = []
    engine.running.register_forward_hook(lambda module, given, result: seen.append(result[0]))
    call = device_call(engine, images, device)
    assert call is not None
    assert (call.launched, device.recorded) == (GRAPH, 1)
    before = len(seen)
    call.run()
    assert len(seen) == before + 1
    np.testing.assert_array_equal(seen[-1].numpy(), engine(images)["logits"])
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        device_call(engine, images, device)


def test_a_module_that_cannot_be_recorded_is_launched(images: np.ndarray) -> None:
    class Refuses(FakeDevice):
        def record(self, work: Callable[[], None], stream: int) -> Callable[[], None]:
            raise RuntimeError("operation not permitted when stream is capturing")

    engine = torch_engine()
    call = device_call(engine, images, Refuses())
    assert call is not None
    assert call.launched == EAGER
    assert torch.equal(call.run()[0], torch.from_numpy(engine(images)["logits"]))


@pytest.mark.parametrize("graphs", [True, False])
def test_what_has_graphs_of_its_own_is_not_recorded_again(
    graphs: bool, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compile", lambda module, **options: module)
    engines = [torch_engine(compiled=True), FakeEngine(image_size=32)]
    for engine in engines:
        engine.on_torch_stream, engine.cuda_graphs = True, graphs
        device = FakeDevice()
        call = device_call(engine, images, device)
        assert call is not None
        call.run()
        assert (call.launched, device.recorded) == (GRAPH if graphs else EAGER, 0)


def test_points_have_it(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = device_times({"a": eager(Queue(), 10, 5e-6)}, rounds=2, turn=2, timer=Queue(holds=False))
    monkeypatch.setattr("evovit_deploy.bench.measure.on_device", lambda engines, images, rounds, turn: found)
    settings = Settings((1,), min_seconds=0.1, min_calls=6, warmup_seconds=0, warmup_calls=3)
    engines = {name: FakeEngine(image_size=32, latency=0.01, sleep=clock.advance) for name in "ab"}
    a, b = benchmark(engines, settings, clock=clock, sleep=clock.advance).points
    assert (a.device, a.launched, a.queued) == (found["a"].latency, EAGER, found["a"].queued)
    assert (b.device, b.launched, b.queued) == (None, None, None)


def test_a_graph_that_torch_compile_refused_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"inductor": {"cudagraph_skips": 2}}

    def called(refused: int) -> FakeEngine:
        engine = FakeEngine(image_size=32, fail=lambda: counts["inductor"].update(cudagraph_skips=2 + refused))
        engine.cuda_graphs = True
        return engine

    monkeypatch.setattr("torch._dynamo.utils.counters", counts)
    assert open_measured(lambda: called(0), (1,)).engine.cuda_graphs
    assert not open_measured(lambda: called(1), (1,)).engine.cuda_graphs


def timed(label: str, ms: float, launched: str | None, queued: bool | None, **more: Any) -> Any:
    found = Latency(600, ms, ms, ms, ms, ms, ms, ms)
    return dataclasses.replace(point(label, 8, 10.0, **more), device=found, launched=launched, queued=queued)


def on_gpu(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> BenchReport:
    return report(timed("evo", 2.0, *ours, speedup=(1.2, 1.1, 1.3)), timed("deit", 3.0, *theirs))


def cells(found: BenchReport) -> list[dict[str, str]]:
    table = tables(found)[0]
    return [dict(zip(table.header, row)) for row in table.rows]


def test_the_row_says_how_it_was_launched() -> None:
    found = on_gpu((GRAPH, True), (EAGER, True))
    evo, deit, written = *cells(found), figures([found])
    assert (evo["device ms"], evo["launched"], evo["device speedup"]) == ("2.000", "CUDA graph", "1.500")
    assert (deit["launched"], deit["device speedup"]) == ("eager launches", "—")
    assert "| device ms | launched | device speedup |" in written
    assert "| 2.00 | CUDA graph | 1.50 |" in written
    assert any("queued before the device came to it" in line for line in lines(found))
    first, device, *_ = [answer.text for answer in answers(found)]
    assert first.startswith("evo: 1.20x faster")
    assert device == "evo on the device alone: 1.50x faster than deit at batch 8"
    best = summary([found])
    assert best is not None
    assert dict(zip(best.header, best.rows[0]))["device speedup"] == "1.500"
    assert parse(json.dumps(found.to_dict()), "here").points == found.points


def test_a_further_baseline_on_the_device() -> None:
    found = on_gpu((GRAPH, True), (GRAPH, True))
    stock = timed("deit stock-compiled", 2.5, GRAPH, True)
    evo = dataclasses.replace(found.points[0], further_speedups=(Speedup("deit stock-compiled", 1.1, 1.0, 1.2),))
    found = dataclasses.replace(
        found,
        subjects=(*found.subjects, subject("deit stock-compiled")),
        points=(evo, found.points[1], stock),
        further_baselines=("deit stock-compiled",),
    )
    over = tables(found)[1]
    assert over.header == ("batch", "model", "device speedup", "speedup")
    assert over.rows == (("8", "evo", "1.250", "1.100 [1.000, 1.200]"),)
    said = [answer.text for answer in answers(found) if answer.question == "device"]
    assert said[1] == "evo on the device alone: 1.25x faster than stock deit under torch.compile at batch 8"


def test_gaps_are_said_and_give_no_speedup() -> None:
    found = on_gpu((GRAPH, True), (EAGER, False))
    evo, deit = cells(found)
    assert deit["launched"] == "eager launches, gaps in it"
    assert "device speedup" not in evo
    assert "device" not in [answer.question for answer in answers(found)]
    assert any("gaps between launches are in the device time of deit at batch 8" in line for line in lines(found))


def test_an_older_record_does_not_say() -> None:
    found = on_gpu((None, None), (None, None))
    evo, _ = cells(found)
    assert evo["device ms"] == "2.000"
    assert "launched" not in evo
    assert "device ms" not in figures([found])
    assert any("does not say whether gaps" in line for line in lines(found))


class Cuda:
    """``torch.cuda`` with a clock of a billion cycles a second."""

    def __init__(self) -> None:
        self.cycles, self.spins = 0, list[int]()

    def _sleep(self, cycles: int) -> None:
        self.spins.append(cycles)
        self.cycles += cycles

    def synchronize(self) -> None: ...

    def Event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        at: list[int] = []
        return SimpleNamespace(
            at=at, record=lambda: at.append(self.cycles), elapsed_time=lambda later: (later.at[0] - at[0]) / 1e6
        )


def test_a_gpu_is_held_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    monkeypatch.setattr("torch.cuda", cuda)
    timer = CudaTimer()
    for seconds in (0.002, 0.01):
        timer.hold(seconds)
    assert cuda.spins[-2:] == [2_000_000, 10_000_000]
    assert len(cuda.spins) == 4  # its clock is measured once
    monkeypatch.delattr(Cuda, "_sleep")
    timer.hold(1.0)  # a PyTorch without it holds nothing, and the rows say that there are gaps

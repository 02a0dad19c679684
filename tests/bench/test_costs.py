"""Load time, first call, memory, and what the machine reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy.bench import costs
from evovit_deploy.bench.costs import open_measured, peak_memory
from evovit_deploy.bench.peaks import measure_peaks
from evovit_deploy.engines import FakeEngine


def test_load_and_first_call(clock: Any) -> None:
    def opened() -> FakeEngine:
        clock.advance(2.0)
        return FakeEngine(latency=iter([0.5, 0.1]), sleep=clock.advance)

    found = open_measured(opened, (8, 1), clock=clock)
    engine, facts = found.engine, found.subject.facts
    assert isinstance(engine, FakeEngine)
    assert engine.batches == [1, 8]
    assert (facts.load_ms, facts.first_ms) == (2000, 500)


def test_batches_outside_of_what_the_engine_takes_are_clipped() -> None:
    engine = open_measured(lambda: FakeEngine(max_batch=4), (1, 64)).engine
    assert isinstance(engine, FakeEngine)
    assert engine.batches == [1, 4]


def test_an_engine_that_fails_is_closed() -> None:
    closed: list[bool] = []

    class Failing(FakeEngine):
        def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
            raise RuntimeError("broken")

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(RuntimeError, match="broken"):
        open_measured(Failing, (1,))
    assert closed == [True]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
def test_peak_memory_is_seen_also_after_it_was_given_back() -> None:
    with peak_memory() as taken:
        block = np.ones(64 << 20, np.uint8)
        del block
    found = taken("cpu")
    assert found is not None
    assert 60 < found < 200


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(costs, "STATUS", tmp_path / "none")
    with peak_memory() as taken:
        pass
    assert taken("cpu") is None


def test_peaks_are_the_best_of_several(clock: Any) -> None:
    """A clock on which every call takes 1 s, then 0.5 s, and so on."""
    ticks = iter([0, 1, 1, 1.5, 1.5, 2.5] * 2)
    found = measure_peaks("cpu", "fp32", seconds=0.1, clock=lambda: next(ticks), products=(16,), copy_bytes=1000)
    assert found.macs_per_second == 16**3 / 0.5
    assert found.bytes_per_second == 2 * 1000 / 0.5
    assert (found.device, found.precision) == ("cpu", "fp32")


@pytest.mark.parametrize(("precision", "products"), [("fp32", 1), ("fp16", 2), ("bf16", 2)])
def test_a_cpu_peak_is_never_below_fp32(precision: str, products: int) -> None:
    """A product in half precision, emulated, takes a hundred times longer than one in FP32, by which runtimes compute there."""
    calls = [100.0, 100, 100, 0.5, 1, 1][-3 * products :]
    ticks = iter([tick for at, seconds in enumerate([*calls, 1, 1, 1]) for tick in (1000 * at, 1000 * at + seconds)])
    found = measure_peaks("cpu", precision, seconds=0.1, clock=lambda: next(ticks), products=(16,), copy_bytes=1000)
    assert found.macs_per_second == 16**3 / 0.5
    assert found.precision == precision

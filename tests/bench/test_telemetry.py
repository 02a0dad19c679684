"""What the driver says, by a stand-in for NVML."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from evovit_deploy.bench.telemetry import Telemetry


class FakeNvml:
    """Clocks fall and the temperature rises with every question; memory clocks are not told."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.asked = 0

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        if kind == self.NVML_CLOCK_MEM:
            raise self.NVMLError("not supported")
        self.asked += 1
        return 2000 - 10 * self.asked

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 300_000

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 60 + self.asked

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return 0x4 | 0x40 if self.asked == 2 else 0x1  # idle is no disturbance

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=-1)]


def test_ranges_and_reasons(clock: Any) -> None:
    found = Telemetry(FakeNvml(), "gpu", clock)
    for _ in range(3):
        found.sample()
        found.sample()  # too soon after the last: the driver is not asked
        clock.advance(0.3)
    summary = found.summary()
    assert summary == {
        "sm_mhz": [1970, 1990],
        "milliwatt": [300_000, 300_000],
        "celsius": [61, 63],
        "throttled": ["hardware thermal", "power cap"],
        "other_processes": 1,
    }
    assert found.summary() is None  # begins again


def test_nothing_without_a_gpu_or_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Telemetry.open("cpu") is None

    def missing() -> None:
        raise RuntimeError("no driver")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=missing))
    assert Telemetry.open("cuda:0") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Telemetry.open("cuda:0") is None

"""What the GPU's driver says beside a run: clocks, power, temperature, throttling, other processes (nvidia-ml-py)."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from .turns import Clock

__all__ = ["Telemetry"]

EVERY_SECONDS = 0.25
# Bits of NVML's nvmlClocksEventReasons; idle and application clocks are what was asked for, not a disturbance.
REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "hardware power brake",
}


class Telemetry:
    """Samples one GPU between measured calls, never during one: a thread would disturb what is measured.

    Args:
        nvml: The module ``pynvml``, initialised.
        handle: NVML's handle of the GPU.
        clock: Seconds.
    """

    def __init__(self, nvml: Any, handle: Any, clock: Clock = time.monotonic) -> None:
        self._nvml, self._handle, self._clock = nvml, handle, clock
        self._last = float("-inf")
        self._seen: dict[str, list[float]] = {}
        self._reasons: set[str] = set()
        self._others = 0

    @classmethod
    def open(cls, device: str) -> Telemetry | None:
        """Return the telemetry of ``cuda:N``; None on a CPU, without nvidia-ml-py, or where the driver does not answer."""
        if not device.startswith("cuda"):
            return None
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            index = int(device.partition(":")[2] or 0)
            # Not by index: NVML's ignores CUDA_VISIBLE_DEVICES.
            uuid = torch.cuda.get_device_properties(index).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except Exception:  # nvidia-ml-py is optional, and containers hide parts of it
            return None

    def sample(self) -> None:
        """Ask the driver, four times per second at most."""
        now = self._clock()
        if now - self._last < EVERY_SECONDS:
            return
        self._last = now
        nvml, handle = self._nvml, self._handle
        self._keep("sm_mhz", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)
        self._keep("memory_mhz", nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM)
        self._keep("milliwatt", nvml.nvmlDeviceGetPowerUsage, handle)
        self._keep("celsius", nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        with contextlib.suppress(nvml.NVMLError):  # not every GPU and container tells
            bits = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
            self._reasons |= {name for bit, name in REASONS.items() if bits & bit}
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            self._others = max(self._others, sum(process.pid != os.getpid() for process in running))

    def _keep(self, name: str, ask: Any, *arguments: Any) -> None:
        with contextlib.suppress(self._nvml.NVMLError):
            self._seen.setdefault(name, []).append(float(ask(*arguments)))

    def summary(self) -> dict[str, Any] | None:
        """Return the range of what was seen since the last summary; None if nothing was.

        Returns:
            ``sm_mhz``, ``memory_mhz``, ``milliwatt``, ``celsius`` as [lowest, highest], ``throttled`` (reasons) and
            ``other_processes``.
        """
        seen = {name: [min(values), max(values)] for name, values in self._seen.items() if values}
        found = {**seen, "throttled": sorted(self._reasons), "other_processes": self._others} if seen else None
        self._seen, self._reasons, self._others, self._last = {}, set(), 0, float("-inf")
        return found

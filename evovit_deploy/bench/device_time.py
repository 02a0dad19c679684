"""The device's own time for a call, with the work queued ahead: gaps between launches on the host never pass for work.

The device is held busy while the host queues a call, so that it finds all of it waiting. A call that was not queued when the
device came to it is known by its first event, which is then over already. Not run on a GPU: tested on a simulated queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import statistics
from .report import Latency

if TYPE_CHECKING:
    import torch

    from ..engines import TorchEngine
    from ..engines.base import Engine
    from ..engines.cuda.device import Device

__all__ = [
    "EAGER",
    "GRAPH",
    "CudaTimer",
    "DeviceCall",
    "DeviceTime",
    "Timer",
    "device_call",
    "device_times",
    "on_device",
]

Array = NDArray[Any]
GRAPH, EAGER = "CUDA graph", "eager launches"
WARM_UP = 3  # calls before a module is recorded: libraries choose kernels and allocate in the first ones
HOLD_FACTOR = 1.5  # of the time that the host took to queue a call
HOLD_FIRST, HOLD_MOST = 1e-4, 0.05  # seconds
ENOUGH = 0.5  # share of calls that have to be queued ahead for these alone to count


@dataclass(frozen=True)
class DeviceCall:
    """One call with images and results on the GPU, on PyTorch's current stream, and how its work is launched."""

    run: Callable[[], Any]
    launched: str


@dataclass(frozen=True)
class DeviceTime:
    """Time on the device, how its work was launched, and whether all of that was queued ahead."""

    latency: Latency
    launched: str
    queued: bool


class Timer(Protocol):
    """Time on a device."""

    def event(self) -> Any:
        """Return a new event with ``record()``, ``query()`` and ``elapsed_time(later)`` in milliseconds."""

    def wait(self) -> None:
        """Wait for everything on the device."""

    def hold(self, seconds: float) -> None:
        """Keep the device busy for so long, without waiting for it."""

    def now(self) -> float:
        """Return the host's clock, seconds."""


class CudaTimer:
    """CUDA's events, and a kernel that counts cycles."""

    def __init__(self) -> None:
        import torch

        self._cuda: Any = torch.cuda  # only partly typed
        self._cycles = 0.0  # a second

    def event(self) -> Any:
        """See :class:`Timer`."""
        return self._cuda.Event(enable_timing=True)

    def wait(self) -> None:
        """See :class:`Timer`."""
        self._cuda.synchronize()

    def hold(self, seconds: float) -> None:
        """See :class:`Timer`."""
        spin = getattr(self._cuda, "_sleep", None)  # of PyTorch's own tests; without it nothing is held
        if spin is None:
            return
        self._cycles = self._cycles or self._rate(spin)
        spin(int(seconds * self._cycles))

    def now(self) -> float:
        """See :class:`Timer`."""
        from time import perf_counter

        return perf_counter()

    def _rate(self, spin: Callable[[int], None], cycles: int = 10_000_000) -> float:
        for _ in range(2):  # the first one loads the kernel
            before, after = self.event(), self.event()
            before.record()
            spin(cycles)
            after.record()
            self.wait()
        return float(1000 * cycles / before.elapsed_time(after))


def device_call(engine: Engine, images: Array, device: Device | None = None) -> DeviceCall | None:
    """Return one call with images and results on the GPU; None where its time cannot be measured.

    That is a CPU, and an engine that runs on a stream which knows nothing of PyTorch's. An eager PyTorch module is recorded in a
    CUDA graph, as its launches take longer than its work; one that cannot be recorded is launched kernel by kernel.

    Args:
        engine: Open engine.
        images: One batch.
        device: That records; the engine's own GPU if None.
    """
    if (device is None and not engine.device.startswith("cuda")) or not engine.on_torch_stream:
        return None
    import torch

    from ..engines import TorchEngine

    if device is None:
        from ..engines.cuda.device import CudaDevice

        device = CudaDevice.of(engine.device)
    given = torch.from_numpy(images).to(device.name)
    run = partial(_call, engine, given) if isinstance(engine, TorchEngine) else partial(engine, given)
    if isinstance(engine, TorchEngine) and not engine.compiled:
        with suppress(RuntimeError):  # of CUDA: something in it cannot be recorded
            return DeviceCall(_recorded(engine, given, device), GRAPH)
    return DeviceCall(run, GRAPH if engine.cuda_graphs else EAGER)


def _call(engine: TorchEngine, given: torch.Tensor) -> Any:
    import torch

    with torch.inference_mode():
        return engine.running(given)


def _recorded(engine: TorchEngine, given: torch.Tensor, device: Device) -> Callable[[], None]:
    stream, results = device.stream(), list[Any]()

    def work() -> None:
        results[:] = _call(engine, given)  # held, as every replay writes them again

    with device.on(stream):
        for _ in range(WARM_UP):
            work()
    device.wait(stream)
    replay = device.record(work, stream)

    def run() -> None:
        replay()
        _ = results, given

    return run


@dataclass
class _Calls:
    """The calls of one model: seconds, and whether each was queued ahead; how long the device is held for the next."""

    seconds: list[float] = field(default_factory=list)
    ahead: list[bool] = field(default_factory=list)
    hold: float = HOLD_FIRST

    def adapt(self, queued: float, ahead: bool) -> None:
        """Choose the next hold; none at all where the longest did not help."""
        if ahead:
            return
        self.hold = 0.0 if self.hold in (0.0, HOLD_MOST) else min(HOLD_MOST, max(2 * self.hold, HOLD_FACTOR * queued))


def device_times(calls: Mapping[str, DeviceCall], rounds: int, turn: int, timer: Timer) -> dict[str, DeviceTime]:
    """Return the time on the device, over ``rounds`` turns of ``turn`` calls for each model; each round goes the other way round.

    Calls that were queued ahead count alone if they are at least half of all; else all count, and ``queued`` is False.

    Args:
        calls: Label -> call, from :func:`device_call`.
        rounds, turn: How many.
        timer: The device's.
    """
    found = {label: _Calls() for label in calls}
    order = list(calls.items())
    for label, call in order:
        found[label].hold = _first_hold(call, timer)
    for _ in range(rounds):
        for label, call in order:
            mine, pairs = found[label], []
            for _ in range(turn):
                before, after = timer.event(), timer.event()
                if mine.hold:
                    timer.hold(mine.hold)
                before.record()
                start = timer.now()
                call.run()
                queued = timer.now() - start
                after.record()
                ahead = not before.query()
                mine.ahead.append(ahead)
                mine.adapt(queued, ahead)
                pairs.append((before, after))
            timer.wait()
            mine.seconds += [before.elapsed_time(after) / 1000 for before, after in pairs]
        order.reverse()
    return {label: _summary(found[label], call.launched) for label, call in calls.items()}


def _first_hold(call: DeviceCall, timer: Timer) -> float:
    """A little longer than the host takes to queue a call."""
    seen = []
    for _ in range(WARM_UP):
        timer.wait()
        start = timer.now()
        call.run()
        seen.append(timer.now() - start)
    timer.wait()
    return min(HOLD_MOST, HOLD_FIRST + HOLD_FACTOR * median(seen))


def _summary(measured: _Calls, launched: str) -> DeviceTime:
    kept = [seconds for seconds, ahead in zip(measured.seconds, measured.ahead) if ahead]
    queued = len(kept) >= ENOUGH * len(measured.seconds)
    return DeviceTime(statistics.latency(np.array(kept if queued else measured.seconds)), launched, queued)


def on_device(engines: Mapping[str, Engine], images: Array, rounds: int, turn: int) -> dict[str, DeviceTime]:
    """Return label -> time on the GPU, of those where it can be measured; empty on a CPU."""
    found = {label: device_call(engine, images) for label, engine in engines.items()}
    calls = {label: call for label, call in found.items() if call is not None}
    return device_times(calls, rounds, turn, CudaTimer()) if calls else {}

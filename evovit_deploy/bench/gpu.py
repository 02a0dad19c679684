"""Calls on a GPU: end to end through pinned memory, and the device's own time between two CUDA events.

Run on an H100 with ONNX Runtime and PyTorch eager; with TensorRT engines it was tested with stand-ins only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, translate

if TYPE_CHECKING:
    import torch

    from ..engines import OrtEngine, TorchEngine
    from ..engines.base import Engine
    from ..engines.cuda.device import Device

__all__ = ["Bound", "Pinned", "device_call", "device_times", "end_to_end"]

Array = NDArray[Any]


def end_to_end(engine: Engine, images: Array, device: Device | None = None) -> Callable[[], Any]:
    """Return one call, from images in host memory to results in host memory.

    On a CPU that is the engine itself. On a GPU both copies go through pinned memory, whatever the backend: TensorRT engines do
    that on their own, PyTorch and ONNX Runtime through :class:`Pinned` and :class:`Bound`.

    Args:
        engine: Open engine.
        images: One batch, as the engine takes it.
        device: Where GPU memory comes from; the engine's own GPU if None.
    """
    if not engine.device.startswith("cuda") and device is None:
        return partial(engine, images)
    if device is None:
        from ..engines.cuda.device import CudaDevice

        device = CudaDevice(int(engine.device.partition(":")[2] or 0))
    from ..engines import OrtEngine, TorchEngine

    if isinstance(engine, TorchEngine):
        return Pinned(engine, images, device)
    if isinstance(engine, OrtEngine):
        return Bound(engine, images, device)
    return partial(engine, images)


class Pinned:
    """One batch through a PyTorch module on a separate stream."""

    def __init__(self, engine: TorchEngine, images: Array, device: Device) -> None:
        import torch

        self._engine = engine
        self._source, self._device, self._stream = torch.from_numpy(images), device, device.stream()
        self._staged = device.pinned(images.shape, self._source.dtype)
        self._images = device.empty(images.shape, self._source.dtype)
        self.results: list[torch.Tensor] = []

    def __call__(self) -> None:
        """Copy in, run, copy out, wait."""
        import torch

        with torch.inference_mode(), self._device.on(self._stream), _translated(self._engine):
            self._staged.copy_(self._source)
            self._images.copy_(self._staged, non_blocking=True)
            values = _module(self._engine)(self._images)
            if not self.results:
                self.results = [self._device.pinned(tuple(value.shape), value.dtype) for value in values]
            for host, value in zip(self.results, values):
                host.copy_(value, non_blocking=True)
        self._device.wait(self._stream)


class Bound:
    """One batch through ONNX Runtime with its input on the device and its outputs in pinned memory."""

    def __init__(self, engine: OrtEngine, images: Array, device: Device) -> None:
        import torch

        self._engine = engine
        self._source, self._device, self._stream = torch.from_numpy(images), device, device.stream()
        self._staged = device.pinned(images.shape, self._source.dtype)
        self._images = device.empty(images.shape, self._source.dtype)
        session = engine.session
        self._binding = session.io_binding()
        kind, _, index = device.name.partition(":")
        entry = session.get_inputs()[0]
        self._binding.bind_input(entry.name, kind, int(index or 0), images.dtype, images.shape, self._images.data_ptr())
        self.results: list[torch.Tensor] = []
        for output in session.get_outputs():
            shape = (len(images), *output.shape[1:])
            host = device.pinned(shape, torch.int64 if "int64" in output.type else torch.float32)
            dtype = np.int64 if "int64" in output.type else np.float32
            self._binding.bind_output(output.name, "cpu", 0, dtype, shape, host.data_ptr())
            self.results.append(host)

    def __call__(self) -> None:
        """Copy in, run, copy out, wait."""
        with self._device.on(self._stream):
            self._staged.copy_(self._source)
            self._images.copy_(self._staged, non_blocking=True)
        self._device.wait(self._stream)  # ONNX Runtime runs on a separate stream
        with _translated(self._engine):
            self._engine.session.run_with_iobinding(self._binding)


def device_call(engine: Engine, images: Array) -> Callable[[], Any] | None:
    """Return one call with images and results on the GPU, on PyTorch's current stream; None where that cannot be timed.

    That is a CPU, and an engine that runs on a stream of its own, as ONNX Runtime does.
    """
    if not engine.device.startswith("cuda") or not engine.on_torch_stream:
        return None
    import torch

    from ..engines import TorchEngine

    given = torch.from_numpy(images).to(engine.device)
    if not isinstance(engine, TorchEngine):
        return partial(engine, given)
    module = _module(engine)

    def run() -> Any:
        with torch.inference_mode():
            return module(given)

    return run


def device_times(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    turn: int,
    *,
    event: Callable[[], Any],
    wait: Callable[[], None],
) -> dict[str, Sequence[float]]:
    """Return the seconds on the device, of ``rounds`` turns of ``turn`` calls for each model, in turn.

    Args:
        calls: Label -> call, from :func:`device_call`.
        rounds, turn: How many.
        event: Makes a timing event: ``torch.cuda.Event(enable_timing=True)``.
        wait: Waits for the device; once a turn, so that the queue of launches never runs dry within one.
    """
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(rounds):
        for label, call in calls.items():
            pairs = []
            for _ in range(turn):
                before, after = event(), event()
                before.record()
                call()
                after.record()
                pairs.append((before, after))
            wait()
            times[label] += [before.elapsed_time(after) / 1000 for before, after in pairs]
    return dict(times)


def _module(engine: TorchEngine) -> Any:
    if engine.module is None:
        raise EngineError(f"{engine.spec.name} is closed.")
    return engine.module


def _translated(engine: Engine) -> Any:
    return translate(EngineError, f"{engine.backend} failed on {engine.spec.name}")

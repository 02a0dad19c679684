"""Calls on a GPU, end to end through pinned memory.

PyTorch eager ran so on an H100. Engines that go through pinned memory on their own were tested with stand-ins only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import EngineError, translate

if TYPE_CHECKING:
    import torch

    from ..engines import TorchEngine
    from ..engines.base import Engine
    from ..engines.cuda.device import Device

__all__ = ["Pinned", "end_to_end", "same_staging"]

Array = NDArray[Any]


def end_to_end(engine: Engine, images: Array, device: Device | None = None) -> Callable[[], Any]:
    """Return one call, from images in host memory to results in host memory.

    On a CPU that is the engine itself. On a GPU both copies go through pinned memory, whatever the backend: most engines do that
    on their own, PyTorch through :class:`Pinned`.

    Args:
        engine: Open engine.
        images: One batch, as the engine takes it.
        device: Where GPU memory comes from; the engine's own GPU if None.
    """
    if not engine.device.startswith("cuda") and device is None:
        return partial(engine, images)
    if device is None:
        from ..engines.cuda.device import CudaDevice

        device = CudaDevice.of(engine.device)
    from ..engines import TorchEngine

    if isinstance(engine, TorchEngine):
        return Pinned(engine, images, device)
    return partial(engine, images)


def same_staging(engines: Iterable[Engine], threads: int | None) -> None:
    """Let every backend on a GPU copy into pinned memory with the same number of threads, which are PyTorch's, process-wide.

    Some engines set them when they are opened and others do not, as a GPU runs what else they do.
    """
    if threads is None or not any(engine.device.startswith("cuda") for engine in engines):
        return
    import torch

    torch.set_num_threads(threads)


class Pinned:
    """One batch through a PyTorch module on a separate stream."""

    def __init__(self, engine: TorchEngine, images: Array, device: Device) -> None:
        import torch

        self._engine = engine
        self._source, self._device, self._stream = images, device, device.stream()
        dtype = torch.from_numpy(images[:0]).dtype
        self._staged, self._images = device.pinned(images.shape, dtype), device.empty(images.shape, dtype)
        self.results: list[torch.Tensor] = []

    def __call__(self) -> None:
        """Copy in, run, copy out, wait."""
        import torch

        from ..engines.cuda.staging import send

        with torch.inference_mode(), self._device.on(self._stream), _translated(self._engine):
            send(self._source, self._staged, self._images)
            values = self._engine.running(self._images)
            if not self.results:
                self.results = [self._device.pinned(tuple(value.shape), value.dtype) for value in values]
            for host, value in zip(self.results, values):
                host.copy_(value, non_blocking=True)
        self._device.wait(self._stream)


def _translated(engine: Engine) -> Any:
    return translate(EngineError, f"{engine.backend} failed on {engine.spec.name}")

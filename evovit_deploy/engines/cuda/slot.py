"""Execution contexts: one thread at a time in each, a recorded graph for each batch size."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...errors import EngineError
from .device import Device

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["GraphCache", "PlanTensor", "Pool", "Slot"]

T = TypeVar("T")
MAX_GRAPHS = 16


class Pool(Generic[T]):
    """Things that one thread uses at a time; made when needed, up to a limit, then waited for.

    Args:
        make: Makes one.
        limit: How many there may be.
    """

    def __init__(self, make: Callable[[], T], limit: int) -> None:
        self._make, self._limit = make, limit
        self._free: list[T] = []
        self._made = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[T]:
        """Use one; the one that was used last comes first, as its graphs and caches are warm.

        Raises:
            EngineError: The pool was closed.
        """
        with self._changed:
            while not self._closed and not self._free and self._made >= self._limit:
                self._changed.wait()
            if self._closed:
                raise EngineError("the engine is closed.")
            item = self._free.pop() if self._free else None
            if item is None:
                self._made += 1
        if item is None:
            try:
                item = self._make()
            except BaseException:
                with self._changed:
                    self._made -= 1
                    self._changed.notify()
                raise
        try:
            yield item
        finally:
            with self._changed:
                self._free.append(item)
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse new borrowers, wait for those at work, and drop everything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while len(self._free) < self._made:
                self._changed.wait()
            self._free.clear()
            self._made = 0


class GraphCache:
    """A recorded graph for each of the batch sizes used last.

    Args:
        make: Batch size -> what replays it.
        limit: How many to keep; each holds a few MB on the device.
    """

    def __init__(self, make: Callable[[int], Callable[[], None]], limit: int = MAX_GRAPHS) -> None:
        self._make, self._limit = make, limit
        self._graphs: OrderedDict[int, Callable[[], None]] = OrderedDict()

    def replay(self, batch: int) -> None:
        """Replay the graph of a batch size, recording it first if it is new."""
        if batch in self._graphs:
            self._graphs.move_to_end(batch)
        else:
            while len(self._graphs) >= self._limit:
                self._graphs.popitem(last=False)
            self._graphs[batch] = self._make(batch)
        self._graphs[batch]()

    def __len__(self) -> int:
        return len(self._graphs)


@dataclass(frozen=True)
class PlanTensor:
    """An input or output of an engine: name, shape without the batch, torch dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Slot:
    """One borrower's share of an engine: context, stream, buffers, graphs.

    Args:
        device: Where it runs.
        context: Makes an execution context. A graph has one of its own, as it must never see a different shape.
        image: The input.
        outputs: The outputs.
        max_batch: Largest batch.
        graphs: Record a graph for each batch size.
    """

    def __init__(
        self, device: Device, context: Callable[[], Any], image: PlanTensor, outputs: tuple[PlanTensor, ...], max_batch: int,
        *, graphs: bool, static_buffers: bool,
    ) -> None:  # fmt: skip
        self.device, self.stream = device, device.stream()
        self._new_context, self._context = context, None if graphs else context()
        self._image, self._outputs, self._max = image, outputs, max_batch
        self._static = graphs or static_buffers
        self._graphs = GraphCache(self._record) if graphs else None
        self._device_buffers: dict[str, torch.Tensor] = {}
        self._host_buffers: dict[str, torch.Tensor] = {}

    def run_device(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run a batch that is on the device.

        Without static buffers the engine reads ``images`` and writes the results where they are. A recorded graph is bound to
        its addresses, so with them the images are copied into the slot's buffer and the (small) outputs out of it, on the
        device.
        """
        n, images = len(images), images.contiguous()
        # Allocated on the caller's stream, as that is where the caller uses and frees them.
        results = {info.name: self.device.empty((n, *info.shape), info.dtype) for info in self._outputs}
        with self.device.on(self.stream):
            if self._static:
                self._buffer(self._image)[:n].copy_(images, non_blocking=True)
                self._execute(n)
                for name, result in results.items():
                    result.copy_(self._device_buffers[name][:n], non_blocking=True)
            else:
                self._enqueue(self._context, {self._image.name: images, **results})
        self.device.hand_over(self.stream)
        return results

    def run_host(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Run a batch that is on the host, through pinned memory; waits for the result."""
        import torch

        n = len(images)
        with self.device.on(self.stream):
            staged = self._host(self._image)[:n]
            staged.copy_(torch.from_numpy(images))
            self._buffer(self._image)[:n].copy_(staged, non_blocking=True)
            self._execute(n)
            for info in self._outputs:
                self._host(info)[:n].copy_(self._buffer(info)[:n], non_blocking=True)
        self.device.wait(self.stream)
        return {info.name: self._host(info)[:n].numpy().copy() for info in self._outputs}

    def _execute(self, n: int) -> None:
        """Run on the slot's own buffers."""
        if self._graphs is not None:
            self._graphs.replay(n)
        else:
            self._enqueue(self._context, self._own(n))

    def _record(self, n: int) -> Callable[[], None]:
        context = self._new_context()
        self._enqueue(context, self._own(n))  # the first run after a new shape prepares things that cannot be recorded
        self.device.wait(self.stream)
        replay = self.device.record(lambda: self._launch(context), self.stream)

        def run() -> None:
            replay()
            _ = context  # lives as long as its graph

        return run

    def _own(self, n: int) -> dict[str, torch.Tensor]:
        return {info.name: self._buffer(info)[:n] for info in (self._image, *self._outputs)}

    def _enqueue(self, context: Any, tensors: dict[str, torch.Tensor]) -> None:
        image = tensors[self._image.name]
        if not context.set_input_shape(self._image.name, tuple(image.shape)):
            raise EngineError(f"the engine refuses a batch of {len(image)}.")
        for name, tensor in tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise EngineError(f"the engine refuses the memory of {name}.")
        self._launch(context)

    def _launch(self, context: Any) -> None:
        if not context.execute_async_v3(self.device.handle(self.stream)):
            raise EngineError("the engine failed while running; see `evovit doctor` for driver and versions.")

    def _buffer(self, info: PlanTensor) -> torch.Tensor:
        if info.name not in self._device_buffers:
            self._device_buffers[info.name] = self.device.empty((self._max, *info.shape), info.dtype)
        return self._device_buffers[info.name]

    def _host(self, info: PlanTensor) -> torch.Tensor:
        if info.name not in self._host_buffers:
            self._host_buffers[info.name] = self.device.pinned((self._max, *info.shape), info.dtype)
        return self._host_buffers[info.name]

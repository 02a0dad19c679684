"""One caller's share of an engine: a stream, buffers, and a recorded graph for each batch size."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from ...errors import EngineError, EvoVitError
from .device import Device
from .gate import GATE
from .staging import send

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["MAX_GRAPHS", "GraphCache", "Program", "Slot", "SlotTensor"]

T = TypeVar("T")
Given = ParamSpec("Given")
_Run = tuple[dict[str, "torch.Tensor"], Callable[[], None]]  # what a run works on, and what puts it on the stream
MAX_GRAPHS = 16  # each holds a few MB on the device


@dataclass(frozen=True)
class SlotTensor:
    """An input or output of an engine: name, shape without the batch, torch dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Program(Protocol):
    """What runs in a slot. It is called with the slot's stream as PyTorch's current one, by one thread at a time."""

    forgets: bool  # dropping what record() returned frees the recording

    def enqueue(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> None:
        """Put a run on the stream, which reads the input and writes the outputs where they are; wait for nothing."""

    def record(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> Callable[[], None]:
        """Record that run, and return what puts it on the stream again. The tensors stay where they are as long as it."""


class GraphCache(Generic[T]):
    """What was recorded, for each batch size.

    Args:
        make: Batch size -> recording.
        limit: How many to keep.
        forgets: At the limit the one used longest ago makes room for a new one; otherwise there is no new one.
    """

    def __init__(self, make: Callable[[int], T], limit: int = MAX_GRAPHS, *, forgets: bool = True) -> None:
        self._make, self._limit, self._forgets = make, limit, forgets
        self._graphs: OrderedDict[int, T] = OrderedDict()

    def makes(self, batch: int) -> bool:
        """Return whether :meth:`get` would make a new recording."""
        return batch not in self._graphs and (self._forgets or len(self._graphs) < self._limit)

    def get(self, batch: int) -> T | None:
        """Return the recording for a batch size, made if it is new; None where no more can be kept."""
        if self.makes(batch):
            while len(self._graphs) >= self._limit:
                self._graphs.popitem(last=False)
            self._graphs[batch] = self._make(batch)
        elif batch in self._graphs:
            self._graphs.move_to_end(batch)
        return self._graphs.get(batch)

    def __len__(self) -> int:
        return len(self._graphs)


def _outside_inference_mode(call: Callable[Given, T]) -> Callable[Given, T]:
    """Tensors that are made in PyTorch's inference mode cannot be written outside it; those made outside can in both."""

    @functools.wraps(call)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> T:
        import torch

        with torch.inference_mode(False):
            return call(*args, **kwargs)

    return called


class Slot:
    """One caller's share of an engine.

    Args:
        device: Where it runs.
        program: What runs.
        image: The input.
        outputs: The outputs.
        max_batch: Largest batch, for which buffers are made once; None for any, and they grow with the batches.
        graphs: Record a graph for each batch size.
        static_buffers: Run on the slot's own buffers without graphs too.
        stream: Where it runs; None makes one.
    """

    def __init__(
        self, device: Device, program: Program, image: SlotTensor, outputs: tuple[SlotTensor, ...], *,
        max_batch: int | None, graphs: bool, static_buffers: bool = False, stream: Any = None,
    ) -> None:  # fmt: skip
        self.device, self.stream = device, device.stream() if stream is None else stream
        self._program, self._image, self._outputs, self._max = program, image, outputs, max_batch
        self._static = graphs or static_buffers
        self._graphs = GraphCache(self._record, forgets=program.forgets) if graphs else None
        self._device_buffers: dict[str, torch.Tensor] = {}
        self._host_buffers: dict[str, torch.Tensor] = {}

    @_outside_inference_mode
    def run_device(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run a batch that is on the device.

        Without static buffers the engine reads ``images`` and writes the results where they are. A recorded graph is bound to
        its addresses, so with them the images are copied into the slot's buffer and the (small) outputs out of it, on the
        device.
        """
        n = len(images)
        recorded = self._recorded(n)
        with GATE.shared():
            images = images.contiguous()
            # Allocated on the caller's stream, as that is where the caller uses and frees them.
            results = {info.name: self.device.empty((n, *info.shape), info.dtype) for info in self._outputs}
            try:
                with self.device.on(self.stream):
                    if self._static:
                        tensors, launch = recorded or self._unrecorded(n)
                        tensors[self._image.name].copy_(images, non_blocking=True)
                        launch()
                        for name, result in results.items():
                            result.copy_(tensors[name], non_blocking=True)
                    else:
                        self._program.enqueue({self._image.name: images, **results}, self.stream)
            finally:  # after a failure too, part of the work is there and reads what the caller is about to free
                self.device.hand_over(self.stream)
        return results

    @_outside_inference_mode
    def run_host(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Run a batch that is on the host, through pinned memory; waits for the result."""
        n = len(images)
        recorded = self._recorded(n)
        with GATE.shared():
            try:
                with self.device.on(self.stream):
                    tensors, launch = recorded or self._unrecorded(n)
                    staged = self._host(self._image, n)
                    send(images, staged, tensors[self._image.name])
                    launch()
                    for info in self._outputs:
                        self._host(info, n).copy_(tensors[info.name], non_blocking=True)
            finally:  # after a failure too, a copy out of the pinned memory may be under way
                self.device.wait(self.stream)
        return {info.name: _numpy(self._host(info, n)) for info in self._outputs}

    def _recorded(self, n: int) -> _Run | None:
        """The graph for a batch of ``n``, recorded now if it is new; None without."""
        if self._graphs is None or not self._graphs.makes(n):
            return None if self._graphs is None else self._graphs.get(n)
        with GATE.alone(), self.device.on(self.stream):
            return self._graphs.get(n)

    def _unrecorded(self, n: int) -> _Run:
        tensors = self._own(n)
        return tensors, partial(self._program.enqueue, tensors, self.stream)

    def _record(self, n: int) -> _Run:
        tensors = self._own(n)  # kept with the graph: where larger batches get larger buffers, it goes on with these
        try:
            return tensors, self._program.record(tensors, self.stream)
        except EvoVitError:
            raise
        except Exception as error:  # of any library
            raise EngineError(
                f"batches of {n} could not be recorded as a CUDA graph: {error}. If other code of this process used the GPU "
                "meanwhile, run each batch size once before it does; else open the file with cuda_graphs=False."
            ) from error

    def _own(self, n: int) -> dict[str, torch.Tensor]:
        return {info.name: self._buffer(info, n) for info in (self._image, *self._outputs)}

    def _buffer(self, info: SlotTensor, n: int) -> torch.Tensor:
        held = self._device_buffers.get(info.name)
        if held is None or len(held) < n:
            held = self._device_buffers[info.name] = self.device.empty((self._max or n, *info.shape), info.dtype)
        return held[:n]

    def _host(self, info: SlotTensor, n: int) -> torch.Tensor:
        held = self._host_buffers.get(info.name)
        if held is None or len(held) < n:
            held = self._host_buffers[info.name] = self.device.pinned((self._max or n, *info.shape), info.dtype)
        return held[:n]


def _numpy(value: torch.Tensor) -> np.ndarray[Any, Any]:
    import torch

    if value.dtype is torch.bfloat16:  # which numpy does not have
        return value.float().numpy()
    return value.numpy().copy()

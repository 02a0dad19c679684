"""What running an engine needs of a GPU: memory, a stream, recorded graphs. Behind a protocol, so that the rest is testable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["CudaDevice", "Device"]


class Device(Protocol):
    """Memory and streams of one device."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return the memory on the device."""

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return page-locked memory of the host, which copies to and from the device without waiting."""

    def stream(self) -> Any:
        """Return a new stream."""

    def handle(self, stream: Any) -> int:
        """Return the stream as TensorRT takes it."""

    def on(self, stream: Any) -> contextlib.AbstractContextManager[None]:
        """Work of the block goes to ``stream``, after what the caller has put on the current one."""

    def hand_over(self, stream: Any) -> None:
        """Make sure that what the caller does next on the current stream comes after the work on ``stream``."""

    def wait(self, stream: Any) -> None:
        """Wait on the host for the work on ``stream``."""

    def record(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """Record ``work`` once, and return what replays it on the current stream."""


class CudaDevice:
    """One CUDA device through PyTorch, which shares its memory pool and streams with the caller's own tensors."""

    def __init__(self, index: int = 0) -> None:
        import torch

        self._torch: Any = torch  # torch.cuda is only partly typed
        self._device = torch.device("cuda", index)
        self.name = f"cuda:{index}"

    @classmethod
    def of(cls, name: str) -> CudaDevice:
        """Return the device of this name, such as ``cuda:1``; ``cuda`` is the first."""
        return cls(int(name.partition(":")[2] or 0))

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """See :class:`Device`."""
        memory: torch.Tensor = self._torch.empty(shape, dtype=dtype, device=self._device)
        return memory

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """See :class:`Device`."""
        memory: torch.Tensor = self._torch.empty(shape, dtype=dtype, pin_memory=True)
        return memory

    def stream(self) -> Any:
        """See :class:`Device`. Never the default stream: TensorRT would synchronise around every run."""
        return self._torch.cuda.Stream(self._device)

    def handle(self, stream: Any) -> int:
        """See :class:`Device`."""
        return int(stream.cuda_stream)

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """See :class:`Device`."""
        stream.wait_stream(self._torch.cuda.current_stream(self._device))
        with self._torch.cuda.stream(stream):
            yield

    def hand_over(self, stream: Any) -> None:
        """See :class:`Device`."""
        self._torch.cuda.current_stream(self._device).wait_stream(stream)

    def wait(self, stream: Any) -> None:
        """See :class:`Device`."""
        stream.synchronize()

    def record(self, work: Callable[[], None], stream: Any) -> Callable[[], None]:
        """See :class:`Device`. Other threads may go on allocating meanwhile."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

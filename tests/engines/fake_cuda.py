"""A GPU that is the CPU, and does everything as late as a GPU may.

Work that is put on a stream waits there until someone waits for the stream, or for another one that was told to come after it.
So what is read too early is garbage, and a test of values sees it: of a stream that was not ordered after another, of
a pinned buffer written again before it was copied, of memory freed while a stream has yet to read it (the stream that it was made
on writes garbage there then, as a new owner would).
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from evovit_deploy.engines.cuda.device import CudaDevice

__all__ = ["DeviceTensor", "FakeGpu", "Stream", "Work"]

FRESH, FREED = 0x63, 0x5A
VIEWS = ("__getitem__", "detach", "expand", "split", "view")
FACTS = (
    "__get__",
    "__len__",
    "data_ptr",
    "dim",
    "element_size",
    "is_contiguous",
    "numel",
    "size",
    "storage_offset",
    "stride",
)
Work = Callable[[], Any]


class Stream:
    """Work in order; none of it is done before it has to be."""

    def __init__(self, gpu: FakeGpu, handle: int) -> None:
        self.cuda_stream = handle
        self._gpu, self._work, self._done = gpu, [], 0
        self.recording: list[Work] | None = None

    def put(self, work: Work) -> None:
        with self._gpu.lock:
            (self._work if self.recording is None else self.recording).append(work)

    def wait_stream(self, other: Stream) -> None:
        with self._gpu.lock:
            until = len(other._work)
            self.put(lambda: other._run(until))

    def synchronize(self) -> None:
        if self.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._gpu.check_not_recorded()
        with self._gpu.lock:
            self._run(len(self._work))

    def _run(self, until: int) -> None:
        while self._done < until:
            work = self._work[self._done]
            self._work[self._done] = lambda: None  # what it held may go
            self._done += 1
            with torch.inference_mode():
                work()


class Graph:
    """Work that was recorded, on the addresses that it was recorded with."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self.work = gpu, []

    def replay(self) -> None:
        for work in self.work:
            self._gpu.current.put(work)


class FakeGpu:
    """Memory, streams and graphs; ``torch.cuda`` as far as :class:`CudaDevice` uses it.

    Attributes:
        graphs: How many were recorded.
        recorder: Thread that records in CUDA's global mode: no other one may allocate or wait meanwhile.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.streams: dict[int, Stream] = {}
        self.graphs = 0
        self.recorder: int | None = None
        self._memory: list[tuple[int, np.ndarray[Any, Any]]] = []
        self._local = threading.local()
        self.default = self._stream()

    def _stream(self, device: Any = None) -> Stream:
        handle = 70 + len(self.streams)
        self.streams[handle] = Stream(self, handle)
        return self.streams[handle]

    @property
    def current(self) -> Stream:
        return getattr(self._local, "stream", self.default)

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self._local.stream = self.current, stream
        try:
            yield
        finally:
            self._local.stream = before

    @contextlib.contextmanager
    def record(self, graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        for each in list(self.streams.values()):
            each.synchronize()
        stream.recording = graph.work
        try:
            with self.on(stream):
                yield
        finally:
            stream.recording = None
        self.graphs += 1

    def device(self, index: int = 0) -> CudaDevice:
        """A real :class:`CudaDevice` whose PyTorch is this."""
        device = CudaDevice(index)
        device._torch = SimpleNamespace(
            empty=self.empty,
            cuda=SimpleNamespace(
                Stream=self._stream,
                current_stream=lambda device: self.current,
                stream=self.on,
                CUDAGraph=lambda: Graph(self),
                graph=self.record,
            ),
        )
        return device

    def empty(
        self, shape: tuple[int, ...], *, dtype: torch.dtype, device: Any = None, pin_memory: bool = False
    ) -> torch.Tensor:
        self.check_not_recorded()
        if pin_memory:
            return torch.full(shape, 88).to(dtype)
        count = int(np.prod(shape)) * dtype.itemsize
        kept = np.full(-(-count // 16) * 16, FRESH, np.uint8)
        given = kept[:]
        weakref.finalize(given, self._freed, kept, self.current).atexit = False
        with self.lock:
            self._memory.append((kept.ctypes.data, kept))
        return self.wrap(torch.from_numpy(given)[:count].view(dtype).view(shape))

    def check_not_recorded(self) -> None:
        if self.recorder not in (None, threading.get_ident()):
            raise RuntimeError("operation not permitted when stream is capturing")

    def _freed(self, kept: np.ndarray[Any, Any], stream: Stream) -> None:
        stream.put(lambda: kept.fill(FREED))

    def at(self, address: int, shape: tuple[int, ...], dtype: torch.dtype, stride: Any = None) -> torch.Tensor:
        """The memory at an address, for work that is done later."""
        for start, kept in self._memory:
            if start <= address < start + kept.nbytes:
                flat = torch.from_numpy(kept).view(dtype)
                size = torch.empty(shape, device="meta").stride() if stride is None else stride
                return flat.as_strided(shape, size, (address - start) // dtype.itemsize)
        raise AssertionError(f"{address:#x} is not memory of the GPU")

    def later(self, value: torch.Tensor) -> torch.Tensor:
        """A tensor for work that is done later: of the GPU by its address, as a kernel has it; of the host itself."""
        if not isinstance(value, DeviceTensor):
            return value
        with torch._C.DisableTorchFunctionSubclass():
            plain = _plain(value)
            return self.at(plain.data_ptr(), tuple(plain.shape), plain.dtype, plain.stride())

    def wrap(self, tensor: torch.Tensor) -> DeviceTensor:
        wrapped: Any = tensor.as_subclass(DeviceTensor)
        wrapped.gpu = self
        return wrapped

    def tensor(self, array: Any) -> DeviceTensor:
        """Put an array on the GPU; the copy is work on the current stream, as everything is."""
        source = torch.from_numpy(np.array(array))
        there = self.empty(tuple(source.shape), dtype=source.dtype)
        there.copy_(source, non_blocking=True)
        return there  # type: ignore[return-value]

    def value(self, tensor: torch.Tensor) -> np.ndarray[Any, Any]:
        """What a tensor of the GPU holds, for the current stream."""
        assert isinstance(tensor, DeviceTensor), type(tensor)
        return tensor.cpu().numpy()


class DeviceTensor(torch.Tensor):
    """A tensor on the fake GPU. What would start a kernel is put on the current stream; what is not known here is refused."""

    gpu: FakeGpu

    @property
    def device(self) -> torch.device:
        return torch.device("cuda:0")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.__name__
        gpu = next(each.gpu for each in torch.utils._pytree.tree_leaves(args) if isinstance(each, cls))
        with torch._C.DisableTorchFunctionSubclass():
            if name in FACTS:
                return func(*args, **kwargs)
            if name in VIEWS:
                found = func(*map(_plain, args), **kwargs)
                return tuple(map(gpu.wrap, found)) if isinstance(found, (tuple, list)) else gpu.wrap(found)
            if name == "copy_":
                return gpu_copy(gpu, *args, **kwargs)
            if name == "contiguous" and args[0].is_contiguous():
                return args[0]
            if name == "zero_":
                target = gpu.later(args[0])
                gpu.current.put(target.zero_)
                return args[0]
            if name == "cpu" or (name == "to" and str(args[1]) == "cpu"):
                host = torch.empty(args[0].shape, dtype=args[0].dtype)
                return gpu_copy(gpu, host, args[0], non_blocking=kwargs.get("non_blocking", False))
            if name in ("contiguous", "cat"):
                sources = torch.utils._pytree.tree_map_only(cls, lambda each: gpu.later(each), args)
                like = func(*sources, **kwargs)
                result = gpu.empty(tuple(like.shape), dtype=like.dtype)
                target = gpu.later(result)
                gpu.current.put(lambda: target.copy_(func(*sources, **kwargs)))
                return result
        raise NotImplementedError(f"{name} on the fake GPU")


def _plain(value: Any) -> Any:
    return value.as_subclass(torch.Tensor) if isinstance(value, DeviceTensor) else value


def gpu_copy(gpu: FakeGpu, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    to, of = gpu.later(target), gpu.later(source)
    gpu.current.put(lambda: to.copy_(of))
    if not non_blocking:
        gpu.current.synchronize()
    return target

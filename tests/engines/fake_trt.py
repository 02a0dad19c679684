"""A stand-in for a TensorRT module: contexts that compute on the addresses they were given, when the fake GPU comes to it."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.engines.fake_cuda import FakeGpu

SIZE, CLASSES = 4, 5
PROFILE = ((2, 3, SIZE, SIZE), (4, 3, SIZE, SIZE), (8, 3, SIZE, SIZE))
MATRIX = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)


def logits_of(images: Any) -> Any:
    """What the fake engine computes: channel means times a matrix."""
    return np.asarray(images).mean((2, 3)) @ MATRIX


def write_plan(path: Path, tag: bytes = b"vtrt", version: tuple[int, ...] = (1, 7, 1, 116)) -> Path:
    path.write_bytes(struct.pack("<4sIQq4B", tag, 0, 2, 64, *version) + bytes(36))
    return path


class FakeContext:
    """An execution context; notices when two threads are in it, and when memory was not given."""

    def __init__(self, engine: FakeTrtEngine, needs_memory: bool) -> None:
        self.engine, self.needs_memory = engine, needs_memory
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.busy = threading.Lock()
        self.shapes: set[tuple[int, ...]] = set()

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.needs_memory = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        self.shapes.add(shape)
        return PROFILE[0][0] <= shape[0] <= PROFILE[2][0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        assert not self.needs_memory
        if not self.busy.acquire(blocking=False):
            self.engine.collisions += 1
            return False
        try:
            time.sleep(self.engine.latency)
            if self.engine.fail:
                return False
            gpu, n = self.engine.gpu, self.shape[0]
            images = gpu.at(self.addresses["images"], self.shape, torch.float32)
            logits = gpu.at(self.addresses["logits"], (n, CLASSES), torch.float32)

            def work() -> None:
                logits.copy_(torch.from_numpy(logits_of(images.numpy())))
                self.engine.runs.append(n)

            gpu.streams[handle].put(work)
            return True
        finally:
            self.busy.release()


class FakeTrtEngine:
    """A deserialised engine."""

    num_io_tensors = 2
    device_memory_size_v2 = 32

    def __init__(self, gpu: FakeGpu, input_shape: tuple[int, ...] = (-1, 3, SIZE, SIZE)) -> None:
        self.gpu = gpu
        self.contexts: list[FakeContext] = []
        self.runs: list[int] = []
        self.collisions, self.latency, self.fail = 0, 0.0, False
        self.config: Any = None
        self._input_shape = input_shape

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.FLOAT"

    def get_tensor_mode(self, name: str) -> str:
        return "TensorIOMode.INPUT" if name == "images" else "TensorIOMode.OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._input_shape if name == "images" else (self._input_shape[0], CLASSES)

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return PROFILE

    def create_runtime_config(self) -> Any:
        def set_runtime_cache(cache: Any) -> bool:
            self.config.cache = cache
            return True

        self.config = SimpleNamespace(
            cuda_graph_strategy="disabled",
            create_runtime_cache=FakeCache,
            set_runtime_cache=set_runtime_cache,
            cache=None,
        )
        return self.config

    def create_execution_context(self, strategy: Any = None) -> FakeContext:
        self.contexts.append(FakeContext(self, strategy == "user managed"))
        return self.contexts[-1]


class FakeCache:
    """A runtime cache that remembers what it was given, and learns something."""

    def __init__(self) -> None:
        self.known = b""

    def deserialize(self, data: bytes) -> bool:
        self.known = data
        return True

    def serialize(self) -> bytes:
        return self.known if self.known.endswith(b"compiled") else self.known + b"compiled"


def fake_trt(engine: FakeTrtEngine | None, errors: tuple[str, ...] = ()) -> Any:
    """A module like ``tensorrt``; deserialising gives ``engine``, or logs ``errors`` and gives None."""

    class ILogger:
        def log(self, severity: int, message: str) -> None: ...

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> FakeTrtEngine | None:
            for text in errors:
                self.logger.log(1, text)
            return engine

    return SimpleNamespace(
        ILogger=ILogger,
        Runtime=Runtime,
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
    )


class FakeDevice:
    """The CPU as a device; a recorded graph is what was recorded."""

    name = "cpu"

    def __init__(self, index: int = 0) -> None:
        self.recorded = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, 99, dtype=dtype)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, 88, dtype=dtype)

    def stream(self) -> int:
        return 77

    def handle(self, stream: int) -> int:
        return stream

    @contextlib.contextmanager
    def on(self, stream: int) -> Iterator[None]:
        yield

    def hand_over(self, stream: int) -> None: ...

    def wait(self, stream: int) -> None: ...

    def record(self, work: Callable[[], None], stream: int) -> Callable[[], None]:
        self.recorded += 1
        return work

"""TensorRT and TensorRT-RTX plans as engines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, InputError, translate
from ...manifest.spec import ModelSpec
from ...storage import cache as cache_files
from ...storage.files import write_bytes
from ..base import Engine
from ..cuda.calls import is_on, run_there
from ..cuda.device import CudaDevice, Device
from ..cuda.gate import GATE
from ..cuda.pool import Pool
from ..cuda.slot import Slot
from ..forking import keep_for_ever, no_cuda_here
from . import engine_manifest
from .api import Api, Gpu, find_gpu, load_api, plan_logger
from .contexts import Contexts
from .load import engine_tensors, load_plan, model_spec

if TYPE_CHECKING:
    import torch

__all__ = ["TrtEngine"]


class TrtEngine(Engine):
    """A plan of TensorRT or TensorRT-RTX. Safe from several threads: each call has an execution context to itself.

    Args:
        path: Plan; its manifest beside it is checked first, and a plan without one opens with what it tells itself.
        device: Index of the GPU.
        cuda_graphs: Replay a recorded graph for each batch size (TensorRT-RTX: its own whole-graph strategy). Images on the
            GPU are then copied once on the device, because a graph is bound to its addresses; without graphs they are not.
        max_contexts: How many calls may run at once; each context holds its own scratch memory and buffers.
        warm_up: Batch sizes to run once now; None is the one the engine was tuned for. Batches outside the profile are
            left out.
        runtime_cache: TensorRT-RTX: keep compiled kernels on disk between processes; True, False, or a file.
        document: The manifest, if it is not to be read from beside the plan.

    Raises:
        ModelFileError: Not a plan, or a manifest that cannot be read.
        EngineError: A plan that is not the one described, or that does not run on this machine.
    """

    on_torch_stream = True

    def __init__(
        self, path: str | Path, *, device: int = 0, cuda_graphs: bool = True, max_contexts: int = 4,
        warm_up: tuple[int, ...] | None = None, runtime_cache: bool | Path = True,
        document: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        path = Path(path)
        if max_contexts < 1:
            raise InputError(f"max_contexts is {max_contexts}; at least one is needed.")
        document = document if document is not None else engine_manifest.read_manifest(path)
        header = engine_manifest.check_file(path, document)
        api = _api(path, document, header.flavour)
        gpu = find_gpu(device)
        engine_manifest.check_environment(path, document, header, api, gpu)
        assert gpu is not None  # check_environment refuses a machine without
        self._start(
            path, document, api, gpu, CudaDevice(device), cuda_graphs=cuda_graphs, max_contexts=max_contexts,
            warm_up=warm_up, runtime_cache=runtime_cache,
        )  # fmt: skip

    def _start(
        self, path: Path, document: dict[str, Any] | None, api: Api, gpu: Gpu, device: Device, *, cuda_graphs: bool,
        max_contexts: int, warm_up: tuple[int, ...] | None, runtime_cache: bool | Path,
    ) -> None:  # fmt: skip
        self.backend, self.device, self._api, self._device = api.flavour, device.name, api, device
        self._cache_path: Path | None = None
        self._logger = plan_logger(api)
        with GATE.shared():
            self._engine = load_plan(api, self._logger, path, document)
        self._image, self._outputs, profile = engine_tensors(self._engine, path)
        self.spec: ModelSpec = model_spec(document, self._image, self._outputs, profile, path)
        self._min, self._max = profile.min, profile.max
        self.cuda_graphs = cuda_graphs
        self._config: Any = None
        self._cache: Any = None
        if api.rtx:
            self._config, self._cache = self._runtime_config(path, gpu, document, runtime_cache)
        self._pool: Pool[Slot] = Pool(self._slot, max_contexts)
        self._closed = False
        for size in warm_up if warm_up is not None else (profile.opt,):
            if profile.min <= size <= profile.max:
                self.run(np.zeros((size, *self.spec.image_shape), self.spec.input))
        self._save_cache()

    @property
    def min_batch(self) -> int:
        """Smallest batch of the profile; smaller ones are padded."""
        return self._min

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`. Fewer images than the profile's minimum are padded."""
        count = len(images)
        if count < self._min:
            images = np.concatenate([images, np.repeat(images[:1], self._min - count, axis=0)])
        with self._pool.borrow() as slot, self._translated(count):
            results = slot.run_host(np.ascontiguousarray(images))
        return {name: value[:count] for name, value in results.items()}

    def __call__(self, images: NDArray[Any] | torch.Tensor) -> dict[str, Any]:
        """See :meth:`Engine.__call__`. Tensors on the engine's GPU stay there, in and out."""
        self._here()
        if not is_on(images, self.device):
            return super().__call__(images)
        return run_there(self, images, self._run_device, limit=self._max, size_of=partial(max, self._min))

    def _run_device(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._pool.borrow() as slot, self._translated(len(images)):
            return slot.run_device(images)

    def close(self) -> None:
        """Wait for calls at work, save the runtime cache, and free the engine."""
        super().close()
        if getattr(self, "_closed", True):
            return
        if self._stale:  # in a forked child: what is on the GPU belongs to the parent
            self._closed = True
            return
        self._closed = True
        slots = self._pool.close()
        self._save_cache()
        with GATE.shared():
            slots.clear()
            self._config = self._cache = self._engine = None

    def forked(self) -> None:
        """See :meth:`Engine.forked`. Nothing of it is freed in a child: that would call CUDA."""
        super().forked()
        keep_for_ever(dict(vars(self)))

    def revive(self) -> None:
        """Refuse: CUDA does not work in a forked child.

        Raises:
            EngineError: Always, unless it is closed.
        """
        if not self._closed:
            raise no_cuda_here(self.spec.name, self.device)

    def _translated(self, count: int) -> Any:
        return translate(EngineError, f"{self._api.title} failed on {self.spec.name} with {count} images", RuntimeError)

    def _slot(self) -> Slot:
        graphs = self.cuda_graphs and not self._api.rtx
        context = self._context_with(self._scratch()) if graphs else self._context
        # TensorRT-RTX records graphs itself; addresses that stay the same keep it from recording again.
        return Slot(
            self._device,
            Contexts(self._device, context, self._image.name),
            self._image,
            self._outputs,
            max_batch=self._max,
            graphs=graphs,
            static_buffers=self.cuda_graphs,
        )

    def _context(self) -> Any:
        context = (
            self._engine.create_execution_context(self._config) if self._config is not None
            else self._engine.create_execution_context()
        )  # fmt: skip
        return self._made(context)

    def _scratch(self) -> torch.Tensor:
        """Scratch memory that all contexts of one slot share: one runs at a time."""
        import torch

        return self._device.empty((max(int(self._engine.device_memory_size_v2), 1),), torch.uint8)

    def _context_with(self, scratch: torch.Tensor) -> Any:
        def make() -> Any:
            strategy = self._api.trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._made(self._engine.create_execution_context(strategy))
            context.set_device_memory(scratch.data_ptr(), scratch.numel())
            return context

        return make

    def _made(self, context: Any) -> Any:
        if context is None:
            raise EngineError(
                f"{self._api.title} cannot run {self.spec.name}: {self._logger.kept.problem()}. If the GPU is out of memory, "
                f"use fewer max_contexts."
            )
        return context

    def _runtime_config(
        self, path: Path, gpu: Gpu, document: dict[str, Any] | None, runtime_cache: bool | Path
    ) -> tuple[Any, Any]:
        trt, config = self._api.trt, self._engine.create_runtime_config()
        if self.cuda_graphs:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if runtime_cache is False:
            return config, None
        if runtime_cache is True:
            key = document["plan"]["sha256"][:16] if document else engine_manifest.plan_key(path)
            runtime_cache = cache_files.cache_file(
                "runtime", self._api.flavour, self._api.version, f"{gpu.name} {gpu.capability}", key
            )
        cache = config.create_runtime_cache()
        known = cache_files.read(runtime_cache)
        if known:
            cache.deserialize(known)  # False for one of another driver: it starts empty then
        config.set_runtime_cache(cache)
        self._cache_path = runtime_cache
        return config, cache

    def _save_cache(self) -> None:
        """Runtime caches cannot be merged: the last to save wins, whole."""
        if self._cache is None or self._cache_path is None:
            return
        data = bytes(self._cache.serialize())
        with cache_files.locked(self._cache_path):
            if data != cache_files.read(self._cache_path):
                write_bytes(self._cache_path, data)


def _api(path: Path, document: dict[str, Any] | None, flavour: str) -> Api:
    """The flavour that wrote a plan; where it is missing and the other is there, the error says how to build for that."""
    try:
        return load_api(flavour)
    except EngineError as error:
        other = "tensorrt" if flavour == "tensorrt-rtx" else "tensorrt-rtx"
        try:
            load_api(other)
        except EngineError:
            raise error from None
        command = engine_manifest.rebuild_command(path, document, other)
        raise EngineError(f"{path} is an engine of {flavour}. {error} Or build it for {other}: {command}") from error

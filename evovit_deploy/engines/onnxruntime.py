"""ONNX Runtime, on a CPU or through CUDA; never one in place of the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, translate
from ..manifest.onnx_file import load_onnx
from .base import Engine
from .cuda.calls import is_on, run_there
from .cuda.device import CudaDevice
from .cuda.gate import GATE
from .cuda.pool import Pool
from .cuda.slot import Slot
from .forking import end_without_destructors, keep_for_ever, no_cuda_here
from .ort.cuda import Bindings, open_session
from .ort.session import PROVIDERS, check_provider, cuda_problem, is_half, session
from .ort.spec import spec_of
from .registry import Backend, Probes, register

if TYPE_CHECKING:
    import torch

__all__ = ["OrtEngine"]


class OrtEngine(Engine):
    """An ONNX file in ONNX Runtime. Safe from several threads: on a CPU they run at once, on a GPU one after another.

    On a GPU everything is on a stream of its own, after what the caller has put on PyTorch's current one. Tensors on the GPU stay
    there, in and out; numpy goes through pinned memory.

    Args:
        path: ONNX file, exported by evovit or with one image input.
        provider: ``cpu``, ``cuda``, or ``auto``: CUDA where it works, else the CPU.
        threads: CPU threads within an operator.
        emulate: Run a BF16 graph on a CPU by rounding after every operation (:mod:`evovit_deploy.engines.emulate`); right
            for comparing outputs, meaningless for timing. Without it a BF16 graph on a CPU is an EngineError.
        strict: With ``emulate``, FP16 too, much of which ONNX Runtime's CPU provider computes in FP32, where nothing overflows.
        cuda_graphs: On a GPU, record a CUDA graph for each of the first sixteen batch sizes, and replay it; other sizes run
            without, since ONNX Runtime keeps graphs as long as the session. It records only models that run on the GPU whole and
            have no control flow: None does it where it can, and logs a warning where it cannot; True is an EngineError there.
            Images on the GPU are copied once on the device for a graph, which is bound to its addresses.
    """

    backend = "onnxruntime"
    on_torch_stream = True

    def __init__(
        self,
        path: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        emulate: bool = False,
        strict: bool = False,
        cuda_graphs: bool | None = None,
    ) -> None:
        if provider == "auto":
            provider = "cpu" if cuda_problem() else "cuda"
        self._path, self._threads = Path(path), threads
        self._emulate = provider == "cpu" and emulate and is_half(path, strict)
        self._file = _identity(self._path)
        self._pool: Pool[Slot] | None = None
        self.cuda_graphs = False
        if provider == "cuda":
            self._open_on_gpu(cuda_graphs)
            return
        if cuda_graphs and provider == "cpu":
            raise EngineError(f"{path} is opened on the CPU, and cuda_graphs is for a GPU. Leave it out.")
        self.session = self._session(provider)
        self.device = "cpu"
        self.spec = spec_of(self.session, Path(path))
        self._input = self.session.get_inputs()[0].name

    def _open_on_gpu(self, graphs: bool | None) -> None:
        check_provider("cuda")  # before anything is asked of the GPU
        device = CudaDevice()

        def make(config: dict[str, str]) -> Any:
            return session(str(self._path), "cuda", self._threads, config=config)

        with GATE.shared():
            opened = open_session(make, device, graphs, self._path.name)
            self.session, self.cuda_graphs = opened.session, opened.graphs
            self.device = device.name
            self.spec = spec_of(self.session, self._path)
            self._input = self.session.get_inputs()[0].name
            self._bindings = bindings = Bindings(opened, self._input, device.name)
            image, outputs = bindings.tensors(self.spec)
        largest = self.spec.batch or self.spec.max_batch

        def slot() -> Slot:
            return Slot(device, bindings, image, outputs, max_batch=largest, graphs=opened.graphs, stream=opened.stream)

        self._pool = Pool(slot, 1)  # a session has one stream

    def _session(self, provider: str) -> Any:
        if self._emulate:
            return session(_emulated(self._path), provider, self._threads, optimise=False)
        return session(str(self._path), provider, self._threads)

    def forked(self) -> None:
        """See :meth:`Engine.forked`. The threads of the session stayed with the parent, and its destructor waits for them."""
        super().forked()
        keep_for_ever(dict(vars(self)))
        end_without_destructors()

    def revive(self) -> None:
        """Open the file again, with threads of this process.

        Raises:
            EngineError: The engine is on a GPU, or the file is no longer the same.
        """
        if self.session is None:
            return
        if self.device != "cpu":
            raise no_cuda_here(self.spec.name, self.device)
        if _identity(self._path) != self._file:
            raise EngineError(
                f"{self._path} was replaced or removed since it was opened, so it cannot be opened again in this forked process. "
                "Open the engine after the fork."
            )
        self.session = self._session("cpu")

    def __call__(self, images: NDArray[Any] | torch.Tensor) -> dict[str, Any]:
        """See :meth:`Engine.__call__`. Tensors on the engine's GPU stay there, in and out."""
        self._here()
        if self._pool is None or not is_on(images, self.device):
            return super().__call__(images)
        batch = self.spec.batch
        return run_there(
            self, images, self._run_there, limit=batch or self.spec.max_batch, size_of=lambda count: batch or count
        )

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        if self.session is None:
            raise EngineError(f"{self.spec.name} is closed.")
        with self._translated(len(images)):
            if self._pool is not None:
                with self._pool.borrow() as slot:
                    return slot.run_host(np.ascontiguousarray(images))
            values = self.session.run(list(self.spec.outputs), {self._input: np.ascontiguousarray(images)})
        return dict(zip(self.spec.outputs, values))

    def _run_there(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.session is None or self._pool is None:
            raise EngineError(f"{self.spec.name} is closed.")
        with self._translated(len(images)), self._pool.borrow() as slot:
            return slot.run_device(images)

    def _translated(self, count: int) -> Any:
        return translate(EngineError, f"ONNX Runtime failed on {self.spec.name} with {count} images")

    def close(self) -> None:
        """Wait for calls at work on a GPU, and free the session."""
        super().close()
        pool = getattr(self, "_pool", None)
        if pool is not None and not self._stale:  # in a forked child what is on the GPU belongs to the parent
            slots = pool.close()
            with GATE.shared():
                slots.clear()
                self._bindings.close()
                self.session = None
        self.session = None


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _emulated(path: str | Path) -> bytes:
    from .emulate import emulate_bf16, emulate_fp16, has_bf16

    model = load_onnx(Path(path), external=True)
    return bytes((emulate_bf16 if has_bf16(model) else emulate_fp16)(model).SerializeToString())


def _open(path: Path, *, provider: str, threads: int | None, **options: Any) -> OrtEngine:
    return OrtEngine(path, provider=provider, threads=threads, **options)


def _usable(probes: Probes) -> tuple[str, ...]:
    found = probes["onnxruntime"]
    cpu = PROVIDERS["cpu"] in found.get("providers", ())
    return (*(("cpu",) if cpu else ()), *(("cuda",) if found.get("cuda_problem", "not asked") is None else ()))


register(
    Backend(
        name="onnxruntime",
        description="ONNX Runtime, on the CPU or with CUDA",
        kind="onnx",
        files="ONNX files",
        suffixes=(".onnx",),
        open=_open,
        module="onnxruntime",
        accepts=("emulate", "strict", "cuda_graphs"),
        any_suffix=True,
        platform="onnxruntime_onnx",
        missing="Make one with: evovit export CKPT -o {stem}.onnx",
        usable=_usable,
        elsewhere="this onnxruntime has no provider for the CPU or CUDA; reinstall it",
    )
)

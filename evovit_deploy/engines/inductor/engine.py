"""A package as an engine: nothing is compiled and no code of the model is loaded."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, translate
from ...manifest.spec import ModelSpec
from ..base import Engine
from ..cuda.calls import is_on, run_there
from ..cuda.device import CudaDevice
from ..cuda.gate import GATE
from ..cuda.pool import Pool
from ..cuda.slot import Slot, SlotTensor
from ..forking import keep_for_ever
from ..pytorch import check_child, check_threads, leave_threads, tensor_of
from .gpu_runs import GpuRuns
from .package import batches_of, check_file, check_machine, read_manifest

if TYPE_CHECKING:
    import torch

__all__ = ["InductorEngine", "model_name"]


def model_name(size: int | None) -> str:
    """Return what the code for one of several static batch sizes is called in a package; None where there is only one."""
    return "model" if size is None else f"batch_{size}"


class InductorEngine(Engine):
    """A ``.pt2`` package on the device that it was compiled for. Calls from several threads are run one after another.

    Args:
        path: Package, with its manifest beside it.
        provider: ``cpu``, ``cuda``, or ``auto``: the device of the package.
        threads: CPU threads, process-wide in PyTorch.
        cuda_graphs: On a GPU, record a CUDA graph for each batch size, the sixteen used last, and replay it on a stream of its
            own; None is True. Images on the GPU are then copied once on the device, because a graph is bound to its addresses;
            with False they are not, and run on PyTorch's current stream.

    Raises:
        EngineError: See :mod:`.package`; or another device than the package's is asked for.
    """

    backend = "inductor"
    on_torch_stream = True

    def __init__(
        self,
        path: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        import torch

        path = Path(path)
        document = read_manifest(path)
        device = document["machine"]["device"]
        if provider not in ("auto", device):
            raise EngineError(f"{path} was compiled for {device}, and {provider} is asked for. Leave the provider out.")
        if cuda_graphs and device == "cpu":
            raise EngineError(f"{path} was compiled for the CPU, and cuda_graphs is for a GPU. Leave it out.")
        check_file(path, document)
        check_machine(path, document)
        check_threads(threads)
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = "cuda:0" if device == "cuda" else "cpu"
        self.cuda_graphs = device == "cuda" and cuda_graphs is not False
        self._batches = batches_of(document)
        sizes = self._batches.sizes
        static = sizes[0] if len(sizes) == 1 else None
        self.spec = dataclasses.replace(
            ModelSpec.from_manifest(document["model"], str(path)), batch=static, max_batch=self._batches.max
        )
        with GATE.shared() if device == "cuda" else nullcontext():
            self._models: dict[int | None, Any] = {
                size: _load(path, model_name(size), device, self.cuda_graphs)
                for size in (sizes if static is None else ()) or (None,)
            }
            self._pool: Pool[Slot] | None = self._on_gpu() if device == "cuda" else None

    def _on_gpu(self) -> Pool[Slot]:
        import torch

        device, spec = CudaDevice(), self.spec
        image = SlotTensor("images", spec.image_shape, getattr(torch, spec.input))
        # How large the results are is not in the manifest; this run says it.
        values = self._run(device.empty((self._batches.of(1), *image.shape), image.dtype))
        outputs = tuple(
            SlotTensor(name, tuple(value.shape[1:]), value.dtype) for name, value in zip(spec.outputs, values)
        )
        runs = GpuRuns(device, self._untranslated, image.name, spec.outputs)

        def slot() -> Slot:
            return Slot(device, runs, image, outputs, max_batch=self._batches.max, graphs=self.cuda_graphs)

        return Pool(slot, 1)  # one runner is in it

    def __call__(self, images: NDArray[Any] | torch.Tensor) -> dict[str, Any]:
        """See :meth:`Engine.__call__`. Tensors on the engine's device stay there, in and out."""
        self._here()
        if not is_on(images, self.device):
            return super().__call__(images)
        return run_there(self, images, self._run_there, limit=self._batches.max, size_of=self._batches.of)

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        count = len(images)
        missing = self._batches.of(count) - count
        if missing:
            images = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
        if self._pool is not None:
            with self._translated(count), self._pool.borrow() as slot:
                found = slot.run_host(np.ascontiguousarray(images))
        else:
            values = self._run(tensor_of(images))
            found = {name: value.numpy() for name, value in zip(self.spec.outputs, values)}
        return {name: value[:count] for name, value in found.items()} if missing else found

    def _run_there(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self._pool is None:
            return dict(zip(self.spec.outputs, self._run(images.contiguous())))
        if not self.cuda_graphs:
            with GATE.shared():
                return dict(zip(self.spec.outputs, self._run(images.contiguous())))
        with self._translated(len(images)), self._pool.borrow() as slot:
            return slot.run_device(images)

    def _run(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run a batch of a size that there is code for."""
        with self._translated(len(images)):
            return self._untranslated(images)

    def _untranslated(self, images: torch.Tensor) -> list[torch.Tensor]:
        import torch

        if not self._models:
            raise EngineError(f"{self.spec.name} is closed.")
        model = self._models[len(images) if len(self._models) > 1 else None]
        with torch.inference_mode():
            return list(model.run([images]))

    def _translated(self, count: int) -> Any:
        return translate(EngineError, f"PyTorch failed on {self.spec.name} with {count} images")

    def forked(self) -> None:
        """See :meth:`Engine.forked`. What is on a GPU is not freed in a child: that would call CUDA."""
        super().forked()
        if getattr(self, "device", "cpu") != "cpu":
            keep_for_ever(dict(vars(self)))
        leave_threads()

    def revive(self) -> None:
        """Go on in a forked child if that takes neither threads nor a GPU.

        Raises:
            EngineError: It does.
        """
        if not self._models:
            return
        check_child(self.spec.name, self.device)

    def close(self) -> None:
        """Wait for a call at work on a GPU, and free the package."""
        super().close()
        pool = getattr(self, "_pool", None)
        if pool is not None and not self._stale:  # in a forked child what is on the GPU belongs to the parent
            slots = pool.close()
            with GATE.shared():
                slots.clear()
                self._models = {}
        self._models = {}


def _load(path: Path, name: str, device: str, alone: bool) -> Any:
    """The loader behind ``torch._inductor.aoti_load_package``, which would import the compiler to open a file.

    ``alone``: one thread at a time runs it, and it need not see to that itself, with events that no graph can have in it.
    """
    import torch

    loader: Any = torch._C._aoti.AOTIModelPackageLoader  # type: ignore[attr-defined,unused-ignore]
    with translate(EngineError, f"PyTorch cannot open {path}"):
        # One runner: calls from several threads wait for each other, and its memory is there once.
        return loader(str(path), name, alone, 1, 0 if device == "cuda" else -1)

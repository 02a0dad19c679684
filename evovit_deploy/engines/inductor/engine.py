"""A package as an engine: nothing is compiled and no code of the model is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, InputError, translate
from ...manifest.spec import ModelSpec
from ..base import Engine
from ..pytorch import check_child, check_threads, leave_threads
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

    Raises:
        EngineError: See :mod:`.package`; or another device than the package's is asked for.
    """

    backend = "inductor"
    on_torch_stream = True

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int | None = None) -> None:
        import torch

        path = Path(path)
        document = read_manifest(path)
        device = document["machine"]["device"]
        if provider not in ("auto", device):
            raise EngineError(f"{path} was compiled for {device}, and {provider} is asked for. Leave the provider out.")
        check_file(path, document)
        check_machine(path, document)
        check_threads(threads)
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = "cuda:0" if device == "cuda" else "cpu"
        self._batches = batches_of(document)
        sizes = self._batches.sizes
        static = sizes[0] if len(sizes) == 1 else None
        self.spec = dataclasses.replace(
            ModelSpec.from_manifest(document["model"], str(path)), batch=static, max_batch=self._batches.max
        )
        self._models: dict[int | None, Any] = {}
        for size in sizes if static is None else ():
            self._models[size] = _load(path, model_name(size), device)
        if not self._models:
            self._models[None] = _load(path, model_name(None), device)

    def __call__(self, images: NDArray[Any] | torch.Tensor) -> dict[str, Any]:
        """See :meth:`Engine.__call__`. Tensors on the engine's device stay there, in and out."""
        self._here()
        if isinstance(images, np.ndarray) or str(getattr(images, "device", "")) != self.device:
            return super().__call__(images)
        import torch

        dtype = str(images.dtype).removeprefix("torch.")
        if dtype != self.spec.input:
            raise InputError(
                f"{self.spec.name} takes {self.spec.input} images, not {images.dtype}. "
                f"Convert with images.to(torch.{self.spec.input})."
            )
        self.check(np.broadcast_to(np.zeros((), dtype), tuple(images.shape)))
        parts = [self._run(part) for part in torch.split(images.detach(), self._batches.max)]
        values = parts[0] if len(parts) == 1 else [torch.cat(found) for found in zip(*parts)]
        return dict(zip(self.spec.outputs, values))

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        import torch

        values = self._run(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        return {name: value.cpu().numpy() for name, value in zip(self.spec.outputs, values)}

    def _run(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run at most ``max_batch`` images, filled up to a size that there is code for."""
        import torch

        if not self._models:
            raise EngineError(f"{self.spec.name} is closed.")
        count = len(images)
        size = self._batches.of(count)
        if size > count:
            images = torch.cat([images, images[:1].expand(size - count, *images.shape[1:])])
        model = self._models[size if len(self._models) > 1 else None]
        with torch.inference_mode(), translate(EngineError, f"PyTorch failed on {self.spec.name} with {count} images"):
            values = model.run([images.contiguous()])
        return list(values) if size == count else [value[:count] for value in values]

    def forked(self) -> None:
        """See :meth:`Engine.forked`."""
        super().forked()
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
        """Free the package."""
        super().close()
        self._models = {}


def _load(path: Path, name: str, device: str) -> Any:
    """The loader behind ``torch._inductor.aoti_load_package``, which would import the compiler to open a file."""
    import torch

    loader: Any = torch._C._aoti.AOTIModelPackageLoader  # type: ignore[attr-defined,unused-ignore]
    with translate(EngineError, f"PyTorch cannot open {path}"):
        # One runner: calls from several threads wait for each other in it, and its memory is there once.
        return loader(str(path), name, False, 1, 0 if device == "cuda" else -1)

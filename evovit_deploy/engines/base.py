"""The Engine protocol: open a file, call it with images, get named outputs."""

from __future__ import annotations

import abc
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, InputError
from ..manifest.spec import ModelSpec
from ..recipes import Recipe
from . import registry
from .forking import watch

if TYPE_CHECKING:
    import torch

    from .batching.batcher import Batcher

__all__ = ["Engine", "ModelSpec"]

Array = NDArray[Any]
Self = TypeVar("Self", bound="Engine")
_BATCHER = threading.Lock()  # held while an engine's own batcher is made or taken away
_REVIVE = threading.Lock()  # held while an engine is made to work in a forked child


class Engine(abc.ABC):
    """A loaded model. Call it with images; close it, or use it in a ``with`` block.

    Attributes:
        spec: What it takes and gives.
        backend: What runs it: ``onnxruntime``, ``pytorch``, ... (`evovit list backends`), or ``fake``.
        device: Where it runs, e.g. ``cpu`` or ``cuda:0``.
        on_torch_stream: Whether images on the GPU are run there on PyTorch's current stream, or in order with what is on it, so
            that its time can be measured.
        cuda_graphs: Whether calls on a GPU replay recorded CUDA graphs rather than launch kernel by kernel.
    """

    spec: ModelSpec
    backend: str
    device: str
    on_torch_stream = False
    cuda_graphs = False
    _batcher: Batcher | None = None
    _ended = False  # closed, so that no batcher is made any more
    _stale = False  # inherited from the parent process and not used here yet

    def __new__(cls: type[Self], *args: Any, **options: Any) -> Self:
        engine: Self = super().__new__(cls)
        watch(engine)
        return engine

    @staticmethod
    def open(
        path: str | Path, *, backend: str = "auto", provider: str = "auto", threads: int | None = None,
        recipe: Recipe | str | None = None, num_heads: int | None = None, ema: bool = False,
        device: int | None = None, cuda_graphs: bool | None = None, max_contexts: int | None = None,
        warm_up: tuple[int, ...] | None = None, runtime_cache: bool | Path | None = None, **options: Any,
    ) -> Engine:  # fmt: skip
        """Open a model file.

        Args:
            path: ``.onnx`` file; a checkpoint (``.pth``, ``.pt``, ``.safetensors``) to run in PyTorch; a TensorRT engine
                (``.engine``, ``.plan``, ``.trt``), of either flavour; or an inductor engine (``.pt2``), which is native code.
            backend: ``auto`` goes by the file's suffix; or a name of `evovit list backends`.
            provider: ``cpu`` or ``cuda``; ``auto`` is CUDA where a GPU can be used, else the CPU. What was asked for is what
                runs: there is no silent fallback.
            threads: CPU threads within an operator; None leaves it to the backend. A TensorRT engine has none.
            recipe, num_heads, ema: For a checkpoint, as for ``load_checkpoint``.
            cuda_graphs: On a GPU, replay a recorded CUDA graph for each batch size: an ONNX file, a TensorRT or an inductor
                engine. None is where it can.
            device, max_contexts, warm_up, runtime_cache: For a TensorRT engine, as for ``TrtEngine``; None is its default.
            options: What else its backend accepts; None is its default.

        Raises:
            ModelFileError: No such file, or not a model.
            EngineError: A backend or provider that does not work on this machine, or a file of a newer evovit-deploy.
            InputError: An option that this kind of file does not have.
            CheckpointError, RecipeError: See ``load_checkpoint``.
        """
        path = Path(path)
        if not path.is_file():
            raise registry.missing_file(path, backend)
        row = registry.opener(path, backend)
        given = {
            **options, "recipe": recipe, "num_heads": num_heads, "ema": ema or None, "device": device,
            "cuda_graphs": cuda_graphs, "max_contexts": max_contexts, "warm_up": warm_up, "runtime_cache": runtime_cache,
        }  # fmt: skip
        engine: Engine = row.open(path, provider=provider, threads=threads, **registry.options_for(row, path, given))
        return engine

    @abc.abstractmethod
    def run(self, images: Array) -> dict[str, Array]:
        """Run one batch that :meth:`__call__` has checked: right shape and dtype, at most ``max_batch`` images."""

    def forked(self) -> None:
        """Called in a forked child at once; what the engine holds is the parent's until :meth:`revive`."""
        global _BATCHER, _REVIVE
        _BATCHER, _REVIVE = threading.Lock(), threading.Lock()  # another thread of the parent may have held them
        self._stale = True

    def revive(self) -> None:  # noqa: B027
        """Make the engine work in a forked child, before its first use there. By default there is nothing to do.

        Raises:
            EngineError: It cannot work in a child; open it after the fork.
        """

    def _here(self) -> None:
        """Revive an engine that was inherited."""
        if self._stale:
            with _REVIVE:
                if self._stale:
                    self.revive()
                    self._stale = False

    def close(self) -> None:
        """Answer what :meth:`submit` took, and free what the engine holds. Calling it again does nothing."""
        with _BATCHER:
            batcher = self._batcher
            self._batcher, self._ended = None, True
        if batcher is not None:
            batcher.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, images: Array | torch.Tensor) -> dict[str, Any]:
        """Run any number of images.

        Args:
            images: numpy array or torch tensor, [B, 3, S, S] float32 normalised or [B, S, S, 3] uint8 as ``spec`` says;
                one image without the batch axis is not accepted. B is free: batches above the maximum are split, and a
                static batch is padded.

        Returns:
            Output name -> array with B rows; numpy for numpy, torch (on the images' device) for torch.

        Raises:
            InputError: Wrong shape or dtype.
        """
        if isinstance(images, np.ndarray):
            self.check(images)
            return self.run_checked(images)
        import torch

        if not isinstance(images, torch.Tensor):
            raise InputError(f"images are {type(images).__name__}; give a numpy array or a torch tensor.")
        self.check_tensor(images)
        given = images.detach().cpu().numpy()
        results = self.run_checked(given)
        return {name: torch.from_numpy(value).to(images.device) for name, value in results.items()}

    def submit(self, images: Array, *, timeout: float | None = None) -> Future[dict[str, Array]]:
        """Queue images for this engine's own :class:`~evovit_deploy.Batcher`, made at the first call.

        Construct a Batcher yourself to choose its limits. See :meth:`Batcher.submit` for arguments, result and errors.

        Raises:
            EngineError: The engine is closed.
        """
        self._here()
        return self._own_batcher().submit(images, timeout=timeout)

    async def asubmit(self, images: Array, *, timeout: float | None = None) -> dict[str, Array]:
        """:meth:`submit` for asyncio; cancelling the task cancels a request that still waits."""
        self._here()
        return await self._own_batcher().asubmit(images, timeout=timeout)

    def _own_batcher(self) -> Batcher:
        with _BATCHER:
            if self._ended:
                raise EngineError(f"{self.spec.name} is closed; open it again with Engine.open.")
            if self._batcher is None:
                from .batching.batcher import Batcher

                self._batcher = Batcher(self)
            return self._batcher

    def run_checked(self, images: Array) -> dict[str, Array]:
        """Run any number of images that :meth:`check` has seen, as :meth:`__call__` does, without looking at them again.

        Args:
            images: [B, 3, S, S] float32 or [B, S, S, 3] uint8, numpy; any B from 1.

        Returns:
            Output name -> array with B rows.
        """
        self._here()
        limit = self.spec.batch or self.spec.max_batch or len(images)
        if len(images) == limit and len(images):
            return self.run(images)
        parts = []
        for start in range(0, len(images), limit):
            chunk = images[start : start + limit]
            count = len(chunk)
            if self.spec.batch is not None and count < self.spec.batch:
                chunk = np.concatenate([chunk, np.repeat(chunk[:1], self.spec.batch - count, axis=0)])
            parts.append({name: value[:count] for name, value in self.run(chunk).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.spec.outputs}

    def check_tensor(self, images: torch.Tensor) -> None:
        """Raise InputError unless a tensor is what the model takes, by its dtype and shape, wherever it is."""
        if str(images.dtype) != f"torch.{self.spec.input}":  # here, since numpy has no bfloat16 to convert to
            raise InputError(
                f"{self.spec.name} takes {self.spec.input} images, not {images.dtype}. "
                f"Convert with images.to(torch.{self.spec.input})."
            )
        self.check(np.broadcast_to(np.zeros((), self.spec.input), tuple(images.shape)))

    def check(self, images: Array) -> None:
        """Raise InputError unless ``images`` is what the model takes."""
        spec = self.spec
        shape = ", ".join(map(str, ("B", *spec.image_shape)))
        if images.ndim != 4 or images.shape[1:] != spec.image_shape:
            hint = ""
            if images.shape == spec.image_shape:
                hint = " Add the batch axis: images[None]."
            elif sorted(images.shape[1:]) == sorted(spec.image_shape):
                hint = " The channels are in the wrong place."
            raise InputError(f"{spec.name} takes images of shape [{shape}], not {list(images.shape)}.{hint}")
        if images.dtype != np.dtype(spec.input):
            what = "normalised float32" if spec.input == "float32" else "uint8 pixels"
            raise InputError(
                f"{spec.name} takes {what}, not {images.dtype}. Convert with images.astype('{spec.input}')."
            )
        if not len(images):
            raise InputError(f"{spec.name} was called with no images: shape {list(images.shape)}.")

"""PyTorch: a module, eager or compiled, as an engine."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, translate
from ..manifest.spec import ModelSpec
from ..suggest import did_you_mean
from .base import Engine
from .forking import no_cuda_here
from .registry import Backend, Probes, register

if TYPE_CHECKING:
    import torch

    from ..checkpoint import Checkpoint
    from ..models.options import ModelOptions
    from ..recipes import Recipe

__all__ = ["TorchEngine", "check_child", "check_threads", "graph_skips", "leave_threads", "module_of"]

_lost_pool = 0  # threads of the pool that the parent of this forked process had


def check_threads(threads: int | None) -> None:
    """Refuse to start PyTorch on a pool of threads that stayed with the parent process: every call would wait for ever.

    Args:
        threads: Wanted; 1 needs no pool.

    Raises:
        EngineError: This process was forked from one where PyTorch ran.
    """
    if _lost_pool and threads != 1:
        raise EngineError(
            f"this process was forked from one where PyTorch ran on {_lost_pool} CPU threads, which do not exist here: it "
            "would wait for them for ever. Open the engine in the children only, start them with 'spawn', or open it with "
            "threads=1 before the fork; an ONNX file has no such limit."
        )
    if _lost_pool:
        import torch

        torch.set_num_threads(1)


def check_child(name: str, device: str) -> None:
    """Raise EngineError unless a model of PyTorch goes on in a forked child, without a GPU and without threads."""
    if device != "cpu":
        raise no_cuda_here(name, device)
    check_threads(None)


def leave_threads() -> None:
    """Note, in a forked child, that the threads of PyTorch's pool stayed with the parent; see :func:`check_threads`."""
    import torch

    global _lost_pool
    threads = torch.get_num_threads()
    _lost_pool = threads if threads > 1 else 0


def tensor_of(images: NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor on the CPU, without a copy where it can be written to: PyTorch warns of others."""
    import torch

    return torch.from_numpy(np.require(images, requirements=("C", "W")))


class TorchEngine(Engine):
    """A module of :mod:`evovit_deploy.models` as an engine.

    Args:
        module: Eval-mode module with ``output_names``, ``structure``, ``image_input`` and ``forward(images) -> tuple``.
        recipe: Its recipe (name and transform).
        precision: ``fp32``, ``fp16`` or ``bf16``: what its parameters are.
        provider: ``cpu``, ``cuda``, or ``auto``.
        threads: CPU threads, process-wide in PyTorch.
        compiled: Run it through ``torch.compile``, which compiles at the first call with each batch size.
    """

    backend = "pytorch"
    on_torch_stream = True

    def __init__(
        self,
        module: Any,
        recipe: Recipe,
        *,
        precision: str = "fp32",
        provider: str = "auto",
        threads: int | None = None,
        compiled: bool = False,
    ) -> None:
        import torch

        if provider not in ("auto", "cpu", "cuda"):
            hint = did_you_mean(provider, ("auto", "cpu", "cuda"))
            raise EngineError(f"provider {provider!r} is unknown; valid: auto, cpu, cuda.{hint}")
        if provider == "cuda" and not torch.cuda.is_available():
            raise EngineError("PyTorch cannot use a GPU here. Use --provider cpu, or see `evovit doctor`.")
        use_cuda = provider == "cuda" or (provider == "auto" and torch.cuda.is_available())
        self.device = "cuda:0" if use_cuda else "cpu"
        if threads is not None:
            torch.set_num_threads(threads)
        self.module: torch.nn.Module | None = module.to(self.device)
        self.compiled, self.cuda_graphs = compiled, compiled and use_cuda
        if compiled:
            self.backend = "torch.compile"
            self.module = _compiled(self.module, use_cuda)
        self.recipe = recipe
        self.weights: dict[str, Any] | None = None  # of a checkpoint: as in a manifest
        self.options: ModelOptions | None = None  # likewise: how the module was built
        self.spec = ModelSpec(
            name=recipe.name,
            image_size=module.structure.image_size,
            input=module.image_input,
            num_classes=module.structure.num_classes,
            outputs=module.output_names,
            precision=precision,
            transform=recipe.transform,
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        options: ModelOptions | None = None,
        *,
        provider: str = "auto",
        threads: int | None = None,
        compiled: bool = False,
    ) -> TorchEngine:
        """Build the inference module of a checkpoint and wrap it."""
        from ..models.build import build_model, resolve_options
        from ..models.options import ModelOptions

        options = resolve_options(options or ModelOptions(), checkpoint.recipe)
        module = build_model(checkpoint.recipe, checkpoint.state, options)
        engine = cls(
            module,
            checkpoint.recipe,
            precision=options.precision,
            provider=provider,
            threads=threads,
            compiled=compiled,
        )
        engine.options = options
        engine.weights = {"source": checkpoint.source, "random": checkpoint.random, "sha256": checkpoint.sha256}
        return engine

    @property
    def running(self) -> torch.nn.Module:
        """The module that calls run.

        Raises:
            EngineError: The engine is closed.
        """
        if self.module is None:
            raise EngineError(f"{self.spec.name} is closed.")
        return self.module

    def forked(self) -> None:
        """See :meth:`Engine.forked`."""
        super().forked()
        leave_threads()

    def revive(self) -> None:
        """Go on in a forked child if that takes neither threads nor a GPU.

        Raises:
            EngineError: It does.
        """
        if self.module is None:
            return
        check_child(self.spec.name, self.device)

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        import torch

        module = self.running
        with torch.inference_mode(), translate(EngineError, f"PyTorch failed on {self.spec.name}"):
            values = module(tensor_of(images).to(self.device))
        return {name: value.cpu().numpy() for name, value in zip(self.spec.outputs, values)}

    def close(self) -> None:
        """Drop the module."""
        super().close()
        self.module = None


def module_of(engine: Engine) -> Any:
    """Return the PyTorch module that an engine runs, which also tells scores; None for an engine of any other kind."""
    return engine.module if isinstance(engine, TorchEngine) else None


def graph_skips() -> int:
    """Return how many modules ``torch.compile`` refused a CUDA graph in this process, and launches kernel by kernel."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", {})
    return int(counters.get("inductor", {}).get("cudagraph_skips", 0))


def _compiled(module: Any, cuda: bool) -> Any:
    """The module through ``torch.compile``, a program for each batch size; on a GPU with CUDA graphs."""
    import torch

    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 64)  # beyond it the module would silently run eager
    return torch.compile(module, dynamic=False, mode="reduce-overhead" if cuda else "default")


def _open(
    path: Path, *, provider: str, threads: int | None, recipe: Recipe | str | None = None, num_heads: int | None = None,
    ema: bool = False, keep: tuple[float, ...] | None = None, schedule: str | None = None, timm: str | None = None,
    method: str | None = None, r: tuple[float, ...] | None = None, compiled: bool = False,
) -> TorchEngine:  # fmt: skip
    from ..checkpoint.options import CheckpointOptions

    check_threads(threads)
    how = CheckpointOptions(recipe, keep, schedule, num_heads, ema=ema, from_timm=timm, method=method, r=r)
    checkpoint = how.load(path)
    return TorchEngine.from_checkpoint(checkpoint, provider=provider, threads=threads, compiled=compiled)


def _usable(probes: Probes) -> tuple[str, ...]:
    return ("cpu", "cuda") if probes["torch"].get("gpu") else ("cpu",)


_EAGER = Backend(
    name="pytorch",
    description="PyTorch, eager",
    kind="checkpoint",
    files="checkpoints",
    suffixes=(".pth", ".pt", ".bin", ".safetensors"),
    open=_open,
    module="torch",
    accepts=("recipe", "num_heads", "ema", "keep", "r", "schedule", "timm", "method"),
    platform="pytorch_libtorch",
    missing="Give the path of a .pth or .safetensors checkpoint.",
    usable=_usable,
)
register(_EAGER)
register(
    dataclasses.replace(
        _EAGER,
        name="compile",
        description="torch.compile, which compiles at the first call with each batch size",
        open=partial(_open, compiled=True),
        by_default=False,
        runs_as="torch.compile",
    )
)

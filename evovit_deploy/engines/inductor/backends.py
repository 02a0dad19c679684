"""The row of packages that AOTInductor compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import Backend, Probes, register
from .package import describe_package, sealed

if TYPE_CHECKING:
    from ..pytorch import TorchEngine
    from .engine import InductorEngine

__all__: list[str] = []


def _open(path: Path, *, provider: str, threads: int | None, **options: Any) -> InductorEngine:
    from .engine import InductorEngine

    return InductorEngine(path, provider=provider, threads=threads, **options)


def _make(engine: TorchEngine, path: Path, batches: tuple[int, ...]) -> None:
    from .compiling import make

    make(engine, path, batches)


def _usable(probes: Probes) -> tuple[str, ...]:
    return ("cpu", "cuda") if probes["torch"].get("gpu") else ("cpu",)


register(
    Backend(
        name="inductor",
        description="PyTorch compiled ahead of time (AOTInductor); for the machine it was built on",
        kind="engine",
        files="inductor engines",
        suffixes=(".pt2",),
        open=_open,
        module="torch",
        accepts=("cuda_graphs",),
        missing="Make one with: evovit export CKPT --format engine --target inductor -o {path}",
        usable=_usable,
        describe=describe_package,
        make=_make,
        sealed=sealed,
    )
)

"""In production: a micro-batcher around any engine, and an HTTP and gRPC service on top of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines.batching.batcher import Batcher

__all__ = ["Batcher"]


def __getattr__(name: str) -> Any:
    if name == "Batcher":  # the command line reads the limits of this package, and needs no engine for that
        from ..engines.batching.batcher import Batcher

        return Batcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

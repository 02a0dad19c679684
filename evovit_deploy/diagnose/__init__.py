"""Where half precision breaks: both precisions of a model layer by layer, on real and on hard images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import Diagnosis
    from .run import diagnose

__all__ = ["Diagnosis", "diagnose"]

_LAZY = {"diagnose": "run", "Diagnosis": "report"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

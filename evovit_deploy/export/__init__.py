"""Checkpoint to ONNX, and the proof that both compute the same.

Loaded when used: an engine reads manifests (:mod:`.manifest`) without bringing torch into its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baseline import export_baseline
    from .gates import ParityReport
    from .onnx import ExportOptions, ExportResult, export_onnx
    from .parity import compare
    from .proof import verify

__all__ = ["ExportOptions", "ExportResult", "ParityReport", "compare", "export_baseline", "export_onnx", "verify"]

_LAZY = {
    "export_baseline": "baseline",
    "ExportOptions": "onnx",
    "ExportResult": "onnx",
    "export_onnx": "onnx",
    "ParityReport": "gates",
    "compare": "parity",
    "verify": "proof",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

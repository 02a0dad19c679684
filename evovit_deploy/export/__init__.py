"""Checkpoint to ONNX, and the proof that both compute the same."""

from .baseline import export_baseline
from .onnx import ExportOptions, ExportResult, export_onnx
from .parity import ParityReport, compare, verify

__all__ = ["ExportOptions", "ExportResult", "ParityReport", "compare", "export_baseline", "export_onnx", "verify"]

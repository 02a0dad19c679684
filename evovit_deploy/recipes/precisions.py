"""Precisions that are asked for and not there, and why."""

from __future__ import annotations

__all__ = ["why_not"]

_QUANTISED = {"int8", "fp8", "int4", "fp4", "nvfp4", "w8a8"}


def why_not(word: str) -> str:
    """Return a sentence on why a precision is not supported, with a space before it; empty for any other word."""
    if word.lower() not in _QUANTISED:
        return ""
    return (
        f" {word} is not supported: without calibration images its error cannot be bounded, and no GPU that runs it was there to "
        "measure what it gains. fp16 and bf16 are proven on every export (docs/precision.md)."
    )

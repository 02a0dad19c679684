"""How a module is built from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..suggest import did_you_mean
from .evolution import PATTERNS

__all__ = ["AUTO_PATTERN", "DTYPES", "ModelOptions"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What `auto` selects with; docs/graph.md and bench/results hold the measurements behind it.
AUTO_PATTERN = "sort"


@dataclass(frozen=True)
class ModelOptions:
    """How a module is built from a checkpoint; none of these changes the function it computes.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16`` parameters and activations (scores and pooling stay FP32).
        image_input: ``float32`` [B, 3, S, S] normalised, or ``uint8`` [B, S, S, 3].
        selection: ``auto`` or one of :data:`.evolution.PATTERNS`.
        outputs: Any of ``logits``, ``probabilities``, ``kept``.
        fold: Fold weights exactly (see :mod:`.vit.folding`, :mod:`.levit.folding`).
        trim: Leave out the last block's dead work.
    """

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    image_input: Literal["float32", "uint8"] = "float32"
    selection: str = "auto"
    outputs: tuple[str, ...] = ("logits",)
    fold: bool = True
    trim: bool = True

    @property
    def pattern(self) -> str:
        """The selection pattern used, ``auto`` resolved."""
        pattern = AUTO_PATTERN if self.selection == "auto" else self.selection
        if pattern not in PATTERNS:
            hint = did_you_mean(self.selection, PATTERNS)
            raise ValueError(f"selection {self.selection!r}; valid: auto, {', '.join(PATTERNS)}.{hint}")
        return pattern

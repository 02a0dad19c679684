"""How a module is built from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["DTYPES", "ModelOptions"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ModelOptions:
    """How a module is built from a checkpoint; none of these changes the function it computes.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16`` parameters and activations (scores and pooling stay FP32).
        image_input: ``float32`` [B, 3, S, S] normalised, or ``uint8`` [B, S, S, 3].
        selection: ``auto``, which is the family's own choice, or one of :data:`.evolution.PATTERNS`.
        outputs: Any of ``logits``, ``probabilities``, ``kept``, ``embedding``, ``class_token``, ``patch_tokens``, ``block_3``,
            ``norm_block_3``, ... (:mod:`.outputs`). Empty is ``logits``, or ``embedding`` of a model without a head.
        fold: Fold weights exactly (see :mod:`.vit.folding`, :mod:`.levit.folding`).
        trim: Leave out the last block's dead work.
    """

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    image_input: Literal["float32", "uint8"] = "float32"
    selection: str = "auto"
    outputs: tuple[str, ...] = ()
    fold: bool = True
    trim: bool = True

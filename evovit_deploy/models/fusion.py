"""Attentive tokens kept and the others fused (EViT, ICLR-22), as pure functions of tokens and scores.

Scores are the class token's attention, the mean over heads. A `Selection` of :mod:`.evolution` decides who is kept; what is left
over becomes one token, the sum of the others weighted by their scores, or is dropped. Shapes are fixed by the recipe, and
nothing is scattered: kept tokens are gathered, and the fused one is a weighted sum over all, with weight 0 for the kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .evolution import Selection

__all__ = ["fused_token", "left_over", "reorganised"]


def left_over(selection: Selection, scores: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of the tokens that are not kept, and those tokens.

    Args:
        selection: Of ``scores``.
        scores: [B, N] float32.
        tokens: [B, N, C].

    Returns:
        [B, M] float32 and [B, M, C], in one order. Where the selection does not gather the others, M = N and the kept have
        score 0.
    """
    if selection.rest is not None and selection.ordered is not None:
        return selection.ordered[:, selection.keep :], selection.rest(tokens)
    return torch.where(selection.kept(), torch.zeros_like(scores), scores), tokens


def fused_token(selection: Selection, scores: Tensor, tokens: Tensor) -> Tensor:
    """Return the sum of the tokens that are not kept, weighted by their scores, which are not normalised (EViT, equation 3).

    Args:
        selection, scores, tokens: As for :func:`left_over`.

    Returns:
        [B, 1, C] in the dtype of ``tokens``; the sum is FP32. A product and a sum, not a MatMul of one row, which TensorRT pads
        and gives a kernel of its own.
    """
    weights, others = left_over(selection, scores, tokens)
    return (weights[..., None] * others.float()).sum(1, keepdim=True).to(tokens.dtype)


def reorganised(selection: Selection, scores: Tensor, tokens: Tensor, fuse: bool) -> Tensor:
    """Map [B, N, C] tokens -> [B, K, C], the kept by descending score; with ``fuse`` the fused one follows, [B, K + 1, C]."""
    kept = selection.select(tokens)
    return torch.cat((kept, fused_token(selection, scores, tokens)), 1) if fuse else kept

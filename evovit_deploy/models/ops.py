"""Operators whose ONNX form is chosen here, not left to the exporter's decomposition.

`gather_tokens` becomes GatherND with batch_dims=1 (torch.gather would become GatherElements, which reads an index a
channel); `topk_indices` and `sort_descending` become TopK (a stable sort, which torch needs to break ties as ONNX does, has no
ONNX form).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["gather_tokens", "onnx_translations", "sort_descending", "topk_indices"]


@torch.library.custom_op("evovit::gather_tokens", mutates_args=())
def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """[B, N, C] tokens, [B, K] int64 indices -> [B, K, C]; row k of image b is ``tokens[b, indices[b, k]]``."""
    return torch.gather(tokens, 1, indices[..., None].expand(-1, -1, tokens.shape[2]))


@gather_tokens.register_fake
def _(tokens: Tensor, indices: Tensor) -> Tensor:
    return tokens.new_empty(indices.shape[0], indices.shape[1], tokens.shape[2])


@torch.library.custom_op("evovit::topk_indices", mutates_args=())
def topk_indices(scores: Tensor, keep: int) -> Tensor:
    """[B, N] scores -> [B, keep] int64, indices of the largest, descending; ties to the lower index (ONNX TopK)."""
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :keep].contiguous()


@topk_indices.register_fake
def _(scores: Tensor, keep: int) -> Tensor:
    return scores.new_empty(scores.shape[0], keep, dtype=torch.int64)


@torch.library.custom_op("evovit::sort_descending", mutates_args=())
def sort_descending(scores: Tensor) -> tuple[Tensor, Tensor]:
    """[B, N] scores -> the same in descending order, and their indices int64; ties to the lower index (ONNX TopK)."""
    values, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    return values, indices


@sort_descending.register_fake
def _(scores: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores), torch.empty_like(scores, dtype=torch.int64)


def onnx_translations(opset: int) -> dict[Any, Callable[..., Any]]:
    """The ``custom_translation_table`` of ``torch.onnx.export`` for these operators."""
    import importlib

    op: Any = getattr(importlib.import_module("onnxscript"), f"opset{opset}")

    def gather_nd(tokens: Any, indices: Any) -> Any:
        return op.GatherND(tokens, op.Unsqueeze(indices, op.Constant(value_ints=[-1])), batch_dims=1)

    def top_k(scores: Any, keep: int) -> Any:
        _, indices = op.TopK(scores, op.Constant(value_ints=[keep]), axis=-1, largest=1, sorted=1)
        return indices

    def sort_all(scores: Any) -> Any:
        values, indices = op.TopK(scores, op.Shape(scores, start=1, end=2), axis=-1, largest=1, sorted=1)
        return values, indices

    return {
        torch.ops.evovit.gather_tokens.default: gather_nd,
        torch.ops.evovit.topk_indices.default: top_k,
        torch.ops.evovit.sort_descending.default: sort_all,
    }

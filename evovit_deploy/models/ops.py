"""The operators that a module runs with: PyTorch's own, or those whose ONNX form is chosen here.

A compiler fuses what it knows. PyTorch's (`torch.compile`, AOTInductor) knows scaled_dot_product_attention, sort and gather, so
modules run with these (:data:`NATIVE`). For ONNX (:data:`ONNX`) attention is MatMul-Softmax-MatMul, the shape that TensorRT
fuses, or where that is asked for the one operator `Attention` (:data:`ONNX_ATTENTION`), which ONNX Runtime's CUDA provider fuses;
`gather_tokens` becomes GatherND with batch_dims=1 (torch.gather would become GatherElements, which reads an index per
channel); `topk_indices`, `sort_descending` and `best` become TopK (a stable sort, which torch needs to break ties as ONNX does,
has no ONNX form; the largest and its place would be two operators). Who exports says so with :func:`lowered`; nothing asks
`torch.compiler.is_exporting()`, which is true under `torch.compile` up to torch 2.11 and would unfuse attention there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "NATIVE",
    "ONNX",
    "ONNX_ATTENTION",
    "Lowered",
    "Operators",
    "best",
    "gather_tokens",
    "lowered",
    "onnx_translations",
    "patches_by_convolution",
    "patches_by_gemm",
    "sort_descending",
    "topk_indices",
]


@dataclass(frozen=True)
class Operators:
    """One implementation of what can be written in several ways; all rows of it are the same functions.

    Attributes:
        attention: softmax(q k^T + bias) v of [B, H, M, D] queries (scaled already), [B, H, L, D] keys, [B, H, L, E] values and a
            bias [H, M, L] or [B, 1, 1, L] or None -> [B, H, M, E].
        gather_tokens: [B, N, C] tokens, [B, K] int64 indices -> [B, K, C].
        topk_indices: [B, N] scores, K -> [B, K] int64, indices of the largest, descending; ties to the lower index.
        sort_descending: [B, N] scores -> the same in descending order, and their indices int64; ties to the lower index.
        best: [B, M, N] scores -> the largest of every row [B, M], and its place int64; ties to the lower place.
        patches: The patch convolution and [B, 3, S, S] images -> [B, N, C].
    """

    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    gather_tokens: Callable[[Tensor, Tensor], Tensor]
    topk_indices: Callable[[Tensor, int], Tensor]
    sort_descending: Callable[[Tensor], tuple[Tensor, Tensor]]
    best: Callable[[Tensor], tuple[Tensor, Tensor]]
    patches: Callable[[nn.Conv2d, Tensor], Tensor]


def patches_by_convolution(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Map [B, 3, S, S] -> [B, N, C] by the convolution itself."""
    return conv(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def patches_by_gemm(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Map [B, 3, S, S] -> [B, N, C] by one matrix product over flattened patches; kernel and stride are the same, no padding.

    On an H100 in FP16 cuDNN's convolution took 1.65 ms at batch 256, and this about 0.2 (docs/design.md, section 5).
    """
    size = conv.kernel_size[0]
    batch, channels, height, width = images.shape
    patches = images.reshape(batch, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
    flat = patches.reshape(batch, (height // size) * (width // size), channels * size * size)
    return F.linear(flat, conv.weight.flatten(1), conv.bias)


@torch.library.custom_op("evovit::gather_tokens", mutates_args=())
def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Map [B, N, C] tokens, [B, K] int64 indices -> [B, K, C]; row k of image b is ``tokens[b, indices[b, k]]``."""
    return torch.gather(tokens, 1, indices[..., None].expand(-1, -1, tokens.shape[2]))


@gather_tokens.register_fake
def _(tokens: Tensor, indices: Tensor) -> Tensor:
    return tokens.new_empty(indices.shape[0], indices.shape[1], tokens.shape[2])


@torch.library.custom_op("evovit::topk_indices", mutates_args=())
def topk_indices(scores: Tensor, keep: int) -> Tensor:
    """Map [B, N] scores -> [B, keep] int64, indices of the largest, descending; ties to the lower index (ONNX TopK)."""
    return torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :keep].contiguous()


@topk_indices.register_fake
def _(scores: Tensor, keep: int) -> Tensor:
    return scores.new_empty(scores.shape[0], keep, dtype=torch.int64)


@torch.library.custom_op("evovit::sort_descending", mutates_args=())
def sort_descending(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Map [B, N] scores -> the same in descending order, and their indices int64; ties to the lower index (ONNX TopK)."""
    values, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    return values, indices


@sort_descending.register_fake
def _(scores: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(scores), torch.empty_like(scores, dtype=torch.int64)


@torch.library.custom_op("evovit::best", mutates_args=())
def best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Map [B, M, N] scores -> the largest of every row [B, M], and its place int64; ties to the lower place (ONNX TopK)."""
    return _best(scores)


@best.register_fake
def _(scores: Tensor) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape[:2]), scores.new_empty(scores.shape[:2], dtype=torch.int64)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """MatMul-Softmax-MatMul and nothing else on the softmax: the shape that TensorRT fuses.

    It does so only if query, key and value have the same width. In half precision, the only one it fuses, query and key are
    therefore padded with zeros to the width of the value (LeViT's is wider). A zero adds nothing to q k^T.
    """
    missing = v.shape[-1] - q.shape[-1]
    if missing and q.dtype != torch.float32:
        q, k = F.pad(q, (0, missing)), F.pad(k, (0, missing))
    logits = q @ k.transpose(-2, -1)
    return (logits if bias is None else logits + bias).softmax(-1) @ v


@torch.library.custom_op("evovit::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Map [B, H, M, D] queries (scaled already), [B, H, L, D] keys and values -> [B, H, M, D] (ONNX Attention)."""
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(q)


def _attention_operator(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Run one node; families that have a bias or wide values say so in their rows before anything is traced."""
    if bias is not None or v.shape[-1] != q.shape[-1]:
        raise NotImplementedError("the operator Attention is written without a bias, of heads of one width.")
    return attention(q, k, v)


def _sort(scores: Tensor) -> tuple[Tensor, Tensor]:
    values, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    return values, indices


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    values, places = scores.max(-1)
    return values, places


NATIVE = Operators(
    attention=_fused_attention,
    gather_tokens=lambda tokens, indices: torch.gather(tokens, 1, indices[..., None].expand(-1, -1, tokens.shape[2])),
    topk_indices=lambda scores, keep: _sort(scores)[1][:, :keep],
    sort_descending=_sort,
    best=_best,
    # On a CPU the convolution is at least as fast (docs/bench.md).
    patches=lambda conv, images: (patches_by_gemm if images.is_cuda else patches_by_convolution)(conv, images),
)
ONNX = Operators(_plain_attention, gather_tokens, topk_indices, sort_descending, best, patches_by_convolution)
ONNX_ATTENTION = dataclasses.replace(ONNX, attention=_attention_operator)


class Lowered(nn.Module):
    """A module that runs with the operators in ``ops``."""

    ops: Operators = NATIVE


@contextlib.contextmanager
def lowered(module: nn.Module, ops: Operators) -> Iterator[None]:
    """Let ``module`` and all modules in it run with ``ops`` within the block; no other thread may run it meanwhile."""
    parts = [part for part in module.modules() if isinstance(part, Lowered)]
    before = [part.ops for part in parts]
    for part in parts:
        part.ops = ops
    try:
        yield
    finally:
        for part, own in zip(parts, before):
            part.ops = own


def onnx_translations(opset: int) -> dict[Any, Callable[..., Any]]:
    """Return the ``custom_translation_table`` of ``torch.onnx.export`` for these operators."""
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

    def top_one(scores: Any) -> Any:
        values, places = op.TopK(scores, op.Constant(value_ints=[1]), axis=-1, largest=1, sorted=1)
        last = op.Constant(value_ints=[-1])
        return op.Squeeze(values, last), op.Squeeze(places, last)

    def one_node(q: Any, k: Any, v: Any) -> Any:
        found, *_ = op.Attention(q, k, v, scale=1.0)
        return found

    return {
        torch.ops.evovit.attention.default: one_node,
        torch.ops.evovit.best.default: top_one,
        torch.ops.evovit.gather_tokens.default: gather_nd,
        torch.ops.evovit.topk_indices.default: top_k,
        torch.ops.evovit.sort_descending.default: sort_all,
    }

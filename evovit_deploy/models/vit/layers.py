"""Layers of a vision transformer. Steps without parameters are modules too, so that exported nodes carry their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Lowered

__all__ = ["ALWAYS_KEPT", "LAYER_NORM_EPS", "Attention", "Block", "ClassRow", "Step", "class_attention"]

LAYER_NORM_EPS = 1e-6
ALWAYS_KEPT = 1e9  # no patch comes near it: scores are sums or means of softmax rows over heads
T = TypeVar("T")


class Step(nn.Module):
    """Calls a function under this module's name: ``self.restore(selection.restore, kept, tokens)``."""

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``."""
        return function(*args)


class Attend(Lowered):
    """softmax(q k^T + bias) v; q is scaled already."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map [B, H, M, D] queries over [B, H, L, D] keys and values, and a bias [B, 1, 1, L] if given -> [B, M, H D]."""
        return self.ops.attention(q, k, v, bias).transpose(1, 2).flatten(2)


class ClassRow(nn.Module):
    """Logits of the class token's attention row, q_cls k^T for every head, in FP32.

    Computed beside the attention and not taken from it: a second consumer of the softmax would keep TensorRT from fusing
    that attention. A product and a sum, not a MatMul: TensorRT pads a MatMul of one row and gives it a kernel, while these
    two disappear in the kernel that lays out q, k and v.
    """

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Map [B, H, M, D] q (scaled) and k -> [B, H, M] float32; the class token is at place 0."""
        return (q[:, :, :1].float() * k.float()).sum(-1)


def class_attention(rows: Sequence[Tensor], weights: Sequence[float], always: int = 1) -> Tensor:
    """Compute sum_i weight_i c_i, with c_i the SUM over heads of the softmax of row i (paper eq. 5).

    Args:
        rows: Of each block that counts, the logits [B, H, M] float32 of its class row. They are stacked, so that a stage
            of four blocks costs one softmax.
        weights: One per row, from :class:`.schedule.Group`.
        always: P, the tokens before the patches: class token and registers.

    Returns:
        [B, M] float32. The first ``always`` tokens score more than :data:`ALWAYS_KEPT`, each more than the next: they take
        part in every group, in this order. That is added here, before the sum, because TensorRT would spend a kernel on it
        after.
    """
    attention = torch.cat(list(rows), 1).softmax(-1)
    if any(weight != 1 for weight in weights):
        heads = rows[0].shape[1]
        attention = attention * torch.cat([attention.new_full((heads, 1), weight) for weight in weights])
    bonus = ALWAYS_KEPT * torch.arange(always, 0, -1, dtype=attention.dtype, device=attention.device)
    first = F.pad(bonus[None], (0, attention.shape[2] - always))
    # A sum over at most six is unrolled into the kernels around it; a longer one is a separate kernel, and a layout more.
    count, tokens = attention.shape[1:]
    few = next(n for n in (6, 5, 4, 3, 2, 1) if count % n == 0)
    return (attention + first).reshape(-1, count // few, few, tokens).sum(2).sum(1)


class Attention(nn.Module):
    """Multi-head self-attention with one qkv projection; ``scale`` is 1 once it is folded into W_q."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, M, C] -> q, k, v, each [B, H, M, D]; q is scaled. ``attend`` and ``proj`` are the other half."""
        # q, k and v as 3 H heads: one transpose, and TensorRT keeps the bias in the GEMM (2 kernels fewer a block than
        # slicing an axis of size 3).
        heads = self.num_heads
        joined = self.qkv(x).reshape(x.shape[0], x.shape[1], 3 * heads, x.shape[2] // heads).transpose(1, 2)
        q, k, v = joined[:, :heads], joined[:, heads : 2 * heads], joined[:, 2 * heads :]
        return (q if self.scale == 1 else q * self.scale), k, v


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as in OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return x * (1.702 * x).sigmoid()


class SwiGLU(nn.Module):
    """silu(a) b of two halves, as in DINOv2's giant."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., 2 D] -> [..., D]."""
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU, "swiglu": SwiGLU}


class Block(nn.Module):
    """Pre-norm transformer block; ``hidden`` rows of fc1, of which `swiglu` makes half as many columns of fc2."""

    def __init__(
        self, dim: int, num_heads: int, hidden: int, activation: str = "gelu", eps: float = LAYER_NORM_EPS
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = Attention(dim, num_heads)
        self.class_row = ClassRow()
        self.norm2 = nn.LayerNorm(dim, eps)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden // 2 if activation == "swiglu" else hidden, dim)

    def mix(self, x: Tensor, want_row: bool, front: int = 0) -> tuple[Tensor, Tensor | None]:
        """Attention half: [B, M, C] -> the same, and its class row's logits [B, H, M] float32 if wanted.

        With ``front`` -> [B, front, C]: only the queries of the first tokens, where nothing else is read.
        """
        q, k, v = self.attn(self.norm1(x))
        row = self.class_row(q, k) if want_row else None
        if front:
            q, x = q[:, :, :front], x[:, :front]
        return x + self.attn.proj(self.attn.attend(q, k, v)), row

    def hidden(self, x: Tensor) -> Tensor:
        """First half of the MLP: [B, M, C] -> [B, M, hidden]."""
        return self.act(self.fc1(self.norm2(x)))

    def forward(self, x: Tensor, want_row: bool = False) -> tuple[Tensor, Tensor | None]:
        """Map [B, M, C] -> the same, and its class row's logits [B, H, M] float32 if wanted."""
        x, row = self.mix(x, want_row)
        return x + self.fc2(self.hidden(x)), row

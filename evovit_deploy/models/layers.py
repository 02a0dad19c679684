"""Layers of a vision transformer. Steps without parameters are modules too, so that exported nodes carry their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LAYER_NORM_EPS", "Attention", "Block", "ClassAttention", "Step"]

LAYER_NORM_EPS = 1e-6
T = TypeVar("T")


class Step(nn.Module):
    """Calls a function under this module's name: ``self.restore(selection.restore, kept, tokens)``."""

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``."""
        return function(*args)


class Attend(nn.Module):
    """softmax(q k^T) v; q is scaled already."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, H, M, D] queries over [B, H, L, D] keys and values -> [B, M, H D]."""
        if torch.compiler.is_exporting():
            # MatMul-Softmax-MatMul and nothing else on the softmax: the shape that TensorRT fuses.
            out = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return out.transpose(1, 2).flatten(2)


class ClassAttention(nn.Module):
    """Class attention c: SUM over heads of the class token's softmax row (paper eq. 5), in FP32.

    It is computed beside the attention and not taken from it: a second consumer of the big softmax would keep TensorRT
    from fusing that attention.
    """

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """[B, H, M, D] q (scaled) and k -> [B, M] float32, attention to every token, the class token included."""
        logits = q[:, :, :1] @ k.transpose(-2, -1)
        return logits.float().softmax(-1).sum(1).squeeze(1)


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
        """[B, M, C] -> q, k, v, each [B, H, M, D]; q is scaled. ``attend`` and ``proj`` are the other half."""
        shape = (x.shape[0], x.shape[1], 3, self.num_heads, x.shape[2] // self.num_heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        return (q if self.scale == 1 else q * self.scale), k, v


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.class_attention = ClassAttention()
        self.norm2 = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def mix(self, x: Tensor, want_scores: bool) -> tuple[Tensor, Tensor | None]:
        """Attention half: [B, M, C] -> the same, and the class attention [B, M] float32 if wanted."""
        q, k, v = self.attn(self.norm1(x))
        scores = self.class_attention(q, k) if want_scores else None
        return x + self.attn.proj(self.attn.attend(q, k, v)), scores

    def hidden(self, x: Tensor) -> Tensor:
        """First half of the MLP: [B, M, C] -> [B, M, hidden]."""
        return self.act(self.fc1(self.norm2(x)))

    def forward(self, x: Tensor, want_scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """[B, M, C] -> the same, and the class attention [B, M] float32 if wanted."""
        x, scores = self.mix(x, want_scores)
        return x + self.fc2(self.hidden(x)), scores

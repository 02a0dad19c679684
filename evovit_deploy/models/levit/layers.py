"""Layers of (Evo-)LeViT: Linear or convolution with BatchNorm, attention with wide values, subsampling attention.

A head's value has twice as many channels as its query and key, four times where the grid is subsampled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import Lowered

__all__ = ["Attention", "Block", "ConvNorm", "Head", "LinearNorm", "Mlp", "Subsample", "average", "stem"]

VALUE_RATIO = 2  # value channels over key channels, within a stage
SUBSAMPLE_VALUE_RATIO = 4  # between stages


class ClassLogits(nn.Module):
    """Logits of the class token's attention row, before the softmax, in FP32.

    A product and a sum rather than a matrix product: TensorRT computes them in the kernel that lays out q, k and v.
    """

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Map [B, H, M, D] q (scaled), [B, H, L, D] k -> [B, H, L] float32, to every token, the class token included."""
        return (q[:, :, :1].float() * k.float()).sum(-1)


class Attend(Lowered):
    """softmax(q k^T + bias) v; q is scaled already."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map [B, H, M, D] queries over [B, H, L, D] keys and [B, H, L, E] values, bias [H, M, L] -> [B, M, H E]."""
        return self.ops.attention(q, k, v, bias).transpose(1, 2).flatten(2)


class LinearNorm(nn.Module):
    """Linear, then BatchNorm over its output channels; ``norm`` is gone once it is folded into ``linear``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm: nn.BatchNorm1d | None = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, M, inputs] -> [B, M, outputs]."""
        x = self.linear(x)
        return x if self.norm is None else self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvNorm(nn.Module):
    """3x3 convolution of stride 2 with padding 1, then BatchNorm; ``norm`` is gone once it is folded into ``conv``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.norm: nn.BatchNorm2d | None = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, S, S] -> [B, outputs, ceil(S / 2), ceil(S / 2)]."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


def stem(dim: int) -> nn.Sequential:
    """Patch embedding: [B, 3, S, S] -> [B, dim, ceil(S / 16), ceil(S / 16)]."""
    widths = (3, dim // 8, dim // 4, dim // 2, dim)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [ConvNorm(inputs, outputs), nn.Hardswish()]
    return nn.Sequential(*layers[:-1])


class Mlp(nn.Module):
    """fc2(hardswish(fc1(x)))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = LinearNorm(dim, hidden), nn.Hardswish(), LinearNorm(hidden, dim)

    def hidden(self, x: Tensor) -> Tensor:
        """First half: [B, M, C] -> [B, M, hidden]."""
        return self.act(self.fc1(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, M, C] -> [B, M, C]."""
        return self.fc2(self.hidden(x))


class Attention(nn.Module):
    """Attention of one stage. The rows of ``qkv`` are query, key and value of head 0, of head 1, ..., as in checkpoints.

    Args:
        dim, num_heads, key_dim: C, H, D.
        biased: Number of tokens if every pair of them has a bias (vanilla LeViT), else 0.
    """

    def __init__(self, dim: int, num_heads: int, key_dim: int, biased: int = 0) -> None:
        super().__init__()
        self.num_heads, self.key_dim = num_heads, key_dim
        self.scale = key_dim**-0.5  # 1 once it is folded into W_q
        values = num_heads * key_dim * VALUE_RATIO
        self.qkv = LinearNorm(dim, 2 * num_heads * key_dim + values)
        self.bias = nn.Parameter(torch.zeros(num_heads, biased, biased)) if biased else None
        self.attend = Attend()
        self.act = nn.Hardswish()
        self.proj = LinearNorm(values, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, M, C] -> q, k [B, H, M, D], v [B, H, M, 2 D]; q is scaled."""
        heads = self.qkv(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        q, k, v = heads.split([self.key_dim, self.key_dim, self.key_dim * VALUE_RATIO], -1)
        return (q if self.scale == 1 else q * self.scale), k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The other half -> [B, M, C]."""
        return self.proj(self.act(self.attend(q, k, v, self.bias)))


class Block(nn.Module):
    """Residual attention, residual MLP; no LayerNorm anywhere."""

    def __init__(self, dim: int, num_heads: int, key_dim: int, hidden: int, biased: int = 0) -> None:
        super().__init__()
        self.attn = Attention(dim, num_heads, key_dim, biased)
        self.class_attention = ClassLogits()
        self.mlp = Mlp(dim, hidden)

    def mix(self, x: Tensor, want_scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attention half: [B, M, C] -> the same, and the logits of the class token's row [B, H, M] if wanted."""
        q, k, v = self.attn(x)
        logits = self.class_attention(q, k) if want_scores else None
        return x + self.attn.mix(q, k, v), logits

    def forward(self, x: Tensor, want_scores: bool = False) -> tuple[Tensor, Tensor | None]:
        """As :meth:`mix`, for the whole block."""
        x, logits = self.mix(x, want_scores)
        return x + self.mlp(x), logits


class Subsample(nn.Module):
    """Attention from every second row and column of the grid to all tokens: the step between two stages, no residual.

    Args:
        dim, out_dim: Channels before and after.
        key_dim: D; there are dim / D heads.
        grid: Patches per side before.
        hidden: Of the residual MLP after it.
        class_token: Whether token 0 is a class token, which is always taken along (Evo-LeViT); without one, every pair of
            tokens has a bias (vanilla LeViT).
    """

    taken: Tensor

    def __init__(self, dim: int, out_dim: int, key_dim: int, grid: int, hidden: int, class_token: bool = True) -> None:
        super().__init__()
        self.num_heads, self.key_dim = dim // key_dim, key_dim
        self.scale = key_dim**-0.5
        values = self.num_heads * key_dim * SUBSAMPLE_VALUE_RATIO
        self.q = LinearNorm(dim, self.num_heads * key_dim)
        self.kv = LinearNorm(dim, self.num_heads * key_dim + values)
        self.bias = None if class_token else nn.Parameter(torch.zeros(self.num_heads, (-(-grid // 2)) ** 2, grid**2))
        self.attend = Attend()
        self.class_attention = ClassLogits()
        self.act = nn.Hardswish()
        self.proj = LinearNorm(values, out_dim)
        self.mlp = Mlp(out_dim, hidden)
        patches = torch.arange(grid * grid).view(grid, grid)[::2, ::2].flatten()
        taken = torch.cat((torch.zeros(1, dtype=torch.long), patches + 1)) if class_token else patches
        self.register_buffer("taken", taken, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, L, C] -> q [B, H, M, D] of the tokens taken, scaled; k [B, H, L, D], v [B, H, L, 4 D] of all."""
        q = self.q(x[:, self.taken]).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        heads = self.kv(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = heads.split([self.key_dim, self.key_dim * SUBSAMPLE_VALUE_RATIO], -1)
        return (q if self.scale == 1 else q * self.scale), k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The other half, with the MLP -> [B, M, out_dim]."""
        x = self.proj(self.act(self.attend(q, k, v, self.bias)))
        return x + self.mlp(x)


class Head(nn.Module):
    """BatchNorm, then Linear; ``norm`` is gone once it is folded."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm: nn.BatchNorm1d | None = nn.BatchNorm1d(dim)
        self.linear = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C] -> [B, classes]."""
        return self.linear(x if self.norm is None else self.norm(x))


def average(logits: list[Tensor]) -> Tensor:
    """Return the mean of the logits [B, classes] of one or two heads."""
    return logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)

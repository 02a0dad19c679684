"""Evo-DeiT in numpy and float64, straight from the paper: slow, order-preserving, nothing folded.

An implementation to compare with that shares no code with the package. It is itself held to the authors' outputs where
those are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def norm(x: Array, weight: Array, bias: Array) -> Array:
    """LayerNorm with eps 1e-6."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


class PlainEvoDeit:
    """One image at a time.

    Args:
        state: The authors' state dict.
        heads: H.
        keep, tradeoff: One for each block.
        starts: First blocks of the stages that select.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        heads: int,
        keep: Sequence[float],
        tradeoff: Sequence[float],
        starts: Sequence[int],
    ) -> None:
        self.state = {key: np.asarray(value, np.float64) for key, value in state.items()}
        self.heads, self.keep, self.tradeoff, self.starts = heads, keep, tradeoff, starts

    def pair(self, name: str) -> tuple[Array, Array]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def linear(self, name: str, x: Array) -> Array:
        weight, bias = self.pair(name)
        return x @ weight.T + bias

    def block(self, i: int, x: Array) -> tuple[Array, Array]:
        """[1 + M, C] -> the same after block i, and its class attention [M]: the sum over heads."""
        normed, (tokens, dim) = norm(x, *self.pair(f"norms.{i}")), x.shape
        split = (tokens, self.heads, dim // self.heads)
        qk = self.linear(f"qks.{i}.qk", normed)
        q, k = qk[:, :dim].reshape(split), qk[:, dim:].reshape(split)
        v = self.linear(f"vs.{i}.v", normed).reshape(split)
        attention = softmax(np.einsum("nhd,mhd->hnm", q, k) / math.sqrt(split[2]))
        x = x + self.linear(f"projs.{i}", np.einsum("hnm,mhd->nhd", attention, v).reshape(tokens, dim))
        hidden = self.linear(f"blocks.{i}.mlp.fc1", norm(x, *self.pair(f"blocks.{i}.norm2")))
        gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        return x + self.linear(f"blocks.{i}.mlp.fc2", gelu), attention[:, 0, 1:].sum(0)

    def __call__(self, image: NDArray[Any]) -> tuple[Array, list[list[int]]]:
        """[3, S, S] normalised -> logits [classes], and the kept patches of each stage, ascending."""
        weight, bias = self.pair("patch_embed.proj")
        size, grid = weight.shape[-1], image.shape[-1] // weight.shape[-1]
        patches = image.astype(np.float64).reshape(3, grid, size, grid, size).transpose(1, 3, 0, 2, 4)
        tokens = patches.reshape(grid * grid, -1) @ weight.reshape(len(weight), -1).T + bias
        x = np.concatenate([self.state["cls_token"][0], tokens]) + self.state["pos_embed"][0]
        scores, chosen, kept = np.zeros(grid * grid), np.arange(grid * grid), []
        for i, (ratio, t) in enumerate(zip(self.keep, self.tradeoff, strict=True)):
            if i in self.starts:
                count = int(grid * grid * ratio)
                chosen = np.sort(np.argsort(-scores, kind="stable")[:count])  # slow updating; the others bypass
                kept.append(chosen.tolist())
            places = np.concatenate([[0], 1 + chosen])
            x[places], fresh = self.block(i, x[places])
            scores[chosen] = fresh if i == 0 else (1 - t) * scores[chosen] + t * fresh
        return self.linear("head", norm(x[1:].mean(0), *self.pair("norm"))), kept

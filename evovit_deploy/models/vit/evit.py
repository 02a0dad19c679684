"""EViT (ICLR-22) on any class-token ViT: between attention and MLP of some blocks the attentive tokens stay, the others fuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...recipes import Structure
from ..evolution import Selection, ascending
from ..fusion import reorganised
from ..outputs import numbered
from .evit_recipe import Fusion
from .layers import Block, Step, class_attention
from .shortening import ShorteningTransformer

__all__ = ["FusingTransformer"]


class FusingTransformer(ShorteningTransformer):
    """A class-token ViT that keeps its attentive tokens; arguments as for :class:`VisionTransformer`.

    Class token and registers are always kept, and have no score. Tokens that were left out never come back, so a model that
    classifies the mean takes it over the tokens that are left.

    ``kept_1``, ``kept_2``, ... [B, K] int64, one a place: the tokens that are kept there, ascending. A number below N is a patch,
    at its original position; N is the token that was fused at the first place, N + 1 that of the second.
    """

    def __init__(self, structure: Structure, fusion: Fusion, **options: Any) -> None:
        super().__init__(structure, **options)
        self.left, self.fuse = fusion.left(structure.num_patches), fusion.fuse
        self.reorganise = Step()

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names: ``kept`` stands for ``kept_1``, ``kept_2``, ..., one a place."""
        return numbered(self.outputs, kept=len(self.left))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        origin: Tensor | None = None  # the number of every token, from the class token on; None before any was moved
        kept: list[Tensor] = []
        last = self.structure.depth - 1
        for i in range(last + 1):
            block: Block = self.blocks[i]  # type: ignore[assignment]
            front = self.structure.classified if i == last and self.trim else 0  # only these tokens are read
            x, row = block.mix(x, i in self.left and (not front or "kept" in self.outputs), front)
            if row is not None:
                scores = self.score(class_attention, [row], [1 / self.structure.num_heads], self.prefix)
                selection = self.select(self.selection_of, scores, self.left[i], origin)
                if "kept" in self.outputs:
                    origin = self.select(self.moved, selection, scores, origin, len(kept))
                    kept.append(self.select(self.patches_of, selection, origin))
                if not front:
                    x = self.reorganise(reorganised, selection, scores, x, self.fuse)
            hidden: Tensor | None = block.hidden(x)
            if i < last or not self.late:
                x, hidden = x + block.fc2(hidden), None
        return self.answer(self.pooled_feature(x, hidden), {"kept": kept}, {last: x})

    def selection_of(self, scores: Tensor, keep: int, origin: Tensor | None = None) -> Selection:
        """Select the first P tokens and the ``keep`` best of the others; scores [B, P + M] float32.

        Args:
            scores, keep: As for :meth:`VisionTransformer.selection_of`.
            origin: [B, P + M] float32, which tokens these are, for who records them (:mod:`..recording`); None before any moved.
        """
        return super().selection_of(scores, keep)

    def moved(self, selection: Selection, scores: Tensor, origin: Tensor | None, place: int) -> Tensor:
        """Return which tokens there are after a selection, [B, P + K] or [B, P + K + 1] float32.

        Args:
            selection: At this place.
            scores: [B, P + M] float32.
            origin: [B, P + M] float32, which tokens there were; None before any moved.
            place: How many places came before.
        """
        numbers = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float32).expand_as(scores)
        after = selection.select((numbers if origin is None else origin)[..., None])[..., 0]
        if not self.fuse:
            return after
        number = self.prefix + self.structure.num_patches + place
        return torch.cat((after, torch.full_like(after[:, :1], number)), 1)

    def patches_of(self, selection: Selection, origin: Tensor) -> Tensor:
        """Return the numbers of the kept tokens, ascending [B, K] int64; those of patches count from 0."""
        return ascending(origin[:, self.prefix : selection.keep] - self.prefix)

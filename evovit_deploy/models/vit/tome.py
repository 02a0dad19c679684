"""ToMe (ICLR-23) on any plain ViT of timm: between attention and MLP of every block, tokens with like keys become one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...recipes import Structure
from ..merging import follow, likeness, places, weights
from ..outputs import numbered
from .layers import Block, Step
from .shortening import ShorteningTransformer
from .tome_recipe import Merging

__all__ = ["MergingTransformer"]


class MergingTransformer(ShorteningTransformer):
    """A class-token ViT that merges tokens; arguments as for :class:`VisionTransformer`, which selects nothing here.

    Attention is proportional: the log of the size of every key is added to its logits, a bias row, so that the attention
    stays one fused kernel in TensorRT.

    Outputs: ``sources_1``, ``sources_2``, ... [B, N] int64, one a merging block: the token that every input patch is in
    after it; ``sizes`` [B, T] float32: the input patches in every token at the end, class token and registers first.
    """

    def __init__(self, structure: Structure, merging: Merging, **options: Any) -> None:
        super().__init__(structure, **options)
        self.merged = merging.counts(structure)
        self.match, self.merge = Step(), Step()

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names: ``sources`` stands for ``sources_1``, ``sources_2``, ..., one a block that merges."""
        return numbered(self.outputs, sources=sum(r > 0 for r in self.merged))

    @property
    def reads_keys(self) -> frozenset[int]:
        """Blocks whose keys are compared, so that their bias counts."""
        return frozenset(i for i, r in enumerate(self.merged) if r)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        sizes = torch.ones(x.shape[:2], dtype=torch.float32, device=x.device)
        sources = torch.arange(self.prefix, x.shape[1], device=x.device).expand(x.shape[0], -1)
        traced: list[Tensor] = []
        bias: Tensor | None = None
        after: dict[int, Tensor] = {}
        last = len(self.merged) - 1
        for i, r in enumerate(self.merged):
            block: Block = self.blocks[i]  # type: ignore[assignment]
            front = self.structure.classified if i == last and self.trim else 0
            q, k, v = block.attn(block.norm1(x))
            if front:  # only these tokens' queries and MLP are read
                q, x = q[:, :, :front], x[:, :front]
            x = x + block.attn.proj(block.attn.attend(q, k, v, bias))
            if r and (not front or self.told):  # the first tokens are not merged
                place = self.match(self.places_of, k, r)
                share, sizes = self.merge(weights, place, sizes, r)
                if self.told:
                    sources = self.match(follow, sources, place)
                    traced.append(sources)
                if not front:
                    x = self.merge(torch.matmul, share.to(x.dtype), x)
                    bias = sizes.log().to(x.dtype)[:, None, None, :]
            hidden: Tensor | None = block.hidden(x)
            if i < last or not self.late:
                x, hidden = x + block.fc2(hidden), None
            if i in self.features.blocks:
                after[i] = self.at_places(x, sources)
        return self.answer(self.pooled_feature(x, hidden), {"sources": traced, "sizes": [sizes]}, after)

    @property
    def told(self) -> bool:
        """Whether an output depends on where patches went."""
        return self.features.places or not {"sources", "sizes"}.isdisjoint(self.outputs)

    def at_places(self, x: Tensor, sources: Tensor) -> Tensor:
        """Map [B, T, C] -> [B, P + N, C]: every patch gets the token that it is in."""
        if not self.features.places:
            return x
        return torch.cat((x[:, : self.prefix], self.ops.gather_tokens(x, sources)), 1)

    def places_of(self, keys: Tensor, r: int) -> Tensor:
        """Decide what is merged by the mean of the keys over heads, [B, H, T, D]; see :func:`.merging.places`."""
        return self.decide(likeness(keys.float().mean(1), self.prefix), r)

    def decide(self, scores: Tensor, r: int) -> Tensor:
        """See :func:`.merging.places`."""
        return places(scores, r, self.prefix, self.ops)

"""What EViT and ToMe have in common: a class-token ViT whose tokens get fewer from block to block and do not come back."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...recipes import Evolution, Structure
from .vit import VisionTransformer

__all__ = ["ShorteningTransformer"]


class ShorteningTransformer(VisionTransformer):
    """A :class:`VisionTransformer` that selects nothing; what becomes of its tokens is in ``forward`` of its subclasses."""

    def __init__(self, structure: Structure, **options: Any) -> None:
        super().__init__(structure, Evolution.whole(structure.depth), **options)

    @property
    def late(self) -> bool:
        """Whether the last fc2 waits for the mean over the tokens; then the tokens are not there after it."""
        return self.trim and self.structure.pool == "patches"

    def pooled_feature(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """Return the feature that the head reads, [B, C] float32, or [B, 2, C] when a distillation token is classified too.

        Args:
            x: [B, M, C] after the last block; with ``hidden`` before the second half of its MLP.
            hidden: What is left to be multiplied: fc2 is linear, so it runs once, on the mean of its inputs. Or None.
        """
        if hidden is None:
            return self.front(x) if self.structure.classified else self.pool_tokens(self.mean, x)
        mean = hidden[:, self.prefix :].float().mean(1).to(hidden.dtype)
        fc2: nn.Linear = self.blocks[-1].fc2  # type: ignore[assignment]
        return x[:, self.prefix :].float().mean(1) + fc2(mean).float()

"""Features of a class-token ViT as outputs: the vector that its head reads, and tokens at their places.

Nothing of this is in the graph of a model that gives class scores only.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ...classes.output_names import block_of
from ...recipes import Structure
from ..ops import Lowered
from ..outputs import kind_of, refuse_norm_blocks

__all__ = ["Features"]


class Features(Lowered):
    """Turns tokens into the features that are asked for; all of them FP32.

    Attributes:
        blocks: Numbers of the blocks whose tokens are read.
        last: Whether the tokens of the last block are, so that none of its work can be left out.
        normed: Whether an output is what the model's last LayerNorm gives, so that its affine must stay where it is.
        places: Whether patches have to be at their places.
    """

    def __init__(self, outputs: Iterable[str], structure: Structure) -> None:
        super().__init__()
        names = tuple(outputs)
        kinds = {kind_of(name) for name in names}
        self.prefix, self.norms_tokens = structure.prefix_tokens, structure.pool != "patches"
        final = structure.depth - 1
        self.blocks = {number for name in names if (number := block_of(name)) is not None}
        self.last = bool(kinds & {"class_token", "patch_tokens"}) or final in self.blocks
        if self.last:
            self.blocks.add(final)
        self.normed = bool(kinds & {"embedding", "class_token", "patch_tokens", "norm_blocks"})
        self.places = bool(kinds & {"patch_tokens", "blocks", "norm_blocks"})
        if not self.norms_tokens:
            refuse_norm_blocks(names)

    def embedding(self, feature: Tensor) -> Tensor:
        """Map the pooled feature after the norm, [B, C] or [B, 2, C] of class and distillation token -> [B, C] float32."""
        feature = feature.float()
        return feature if feature.dim() == 2 else feature.mean(1)

    def tokens(self, name: str, after: dict[int, Tensor], norm: nn.Module) -> Tensor:
        """Return one output that is made of tokens.

        Args:
            name: ``class_token`` [B, C], or ``patch_tokens``, ``block_3``, ``norm_block_3`` [B, N, C].
            after: Block number -> [B, P + N, C], all tokens after it; the patches are at their places already.
            norm: The model's last LayerNorm.
        """
        block = block_of(name)
        x = after[max(after) if block is None else block]
        x = x[:, 0] if name == "class_token" else x[:, self.prefix :]
        if self.norms_tokens and kind_of(name) != "blocks":
            x = norm(x)
        return x.float()

    def reads(self, blocks: range) -> bool:
        """Return whether an output is made of patches at their places after one of these blocks."""
        return self.places and any(block in self.blocks for block in blocks)

    def order_of(self, origin: Tensor) -> Tensor:
        """Return which token belongs at each place, the inverse permutation, by sorting and without a scatter.

        Args:
            origin: [B, P + N] float32, the original place of every token.

        Returns:
            [B, P + N] int64.
        """
        return self.ops.sort_descending(-origin)[1]

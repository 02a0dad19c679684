"""Evo-DeiT, and the vanilla DeiT it is compared with, as one inference module.

The whole computation reads top to bottom: `embed`, then group after group of blocks on all tokens or on the kept ones
(`Group`, derived from the recipe), then `pool` and the head. The vanilla twin is the same code without a selecting group
and with the class token as pooled feature, so that a comparison of the two compares the method and nothing else.

Tokens are [B, 1 + N, C], the class token at place 0. It takes part in every selection with a score no patch can reach.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..recipes import Evolution, Structure, Transform
from .evolution import PATTERNS, Selection, ascending
from .layers import LAYER_NORM_EPS, Block, Step, class_attention
from .schedule import Group, plan

__all__ = ["VisionTransformer"]

# Added to the class token's score: scores are sums of softmax rows over heads, so no patch comes near it.
ALWAYS_KEPT = 1e9


class VisionTransformer(nn.Module):
    """Evo-DeiT or vanilla DeiT for inference, built for one structure, one schedule and one set of outputs.

    Args:
        structure: Sizes.
        evolution: Keep ratios, tradeoff, schedule; keep ratio 1 everywhere is a vanilla transformer.
        pool: ``patches`` classifies the mean of all patch tokens (Evo-DeiT), ``cls`` the class token (DeiT).
        pattern: Selection pattern, one of :data:`.evolution.PATTERNS`; all the same function.
        transform: Needed for uint8 input only.
        image_input: ``float32`` takes [B, 3, S, S] normalised; ``uint8`` takes [B, S, S, 3] as decoded.
        outputs: Any of ``logits``, ``probabilities``, ``kept``.
        trim: Leave out the work of the last block that no output depends on, and let its fc2 commute with the mean.

    ``forward(images)`` returns a tuple in the order of :attr:`output_names`. Parameters may be FP32, FP16 or BF16; scores,
    ranks, pooling and outputs are FP32 in all of them.
    """

    pixel_center: Tensor
    pixel_scale: Tensor

    def __init__(
        self,
        structure: Structure,
        evolution: Evolution,
        *,
        pool: Literal["patches", "cls"] = "patches",
        pattern: str = "sort",
        transform: Transform | None = None,
        image_input: Literal["float32", "uint8"] = "float32",
        outputs: tuple[str, ...] = ("logits",),
        trim: bool = True,
    ) -> None:
        super().__init__()
        self.structure, self.evolution, self.pool = structure, evolution, pool
        self.pattern, self.image_input, self.outputs, self.trim = pattern, image_input, outputs, trim
        self.groups: list[Group] = plan(evolution, structure.num_patches)
        self.transform = transform or Transform()

        dim, hidden = structure.embed_dim, round(structure.embed_dim * structure.mlp_ratio)
        self.patch_embed = nn.Conv2d(3, dim, structure.patch_size, structure.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + structure.num_patches, dim))
        self.blocks = nn.ModuleList(Block(dim, structure.num_heads, hidden) for _ in range(structure.depth))
        self.embed, self.score, self.select, self.restore, self.pool_tokens = (Step() for _ in range(5))
        self.norm = nn.LayerNorm(dim, LAYER_NORM_EPS)
        self.head = nn.Linear(dim, structure.num_classes)

        # (pixel - center) * scale; folding replaces both by powers of two and integers, exact in FP16.
        self.register_buffer("pixel_center", 255 * torch.tensor(self.transform.mean), persistent=False)
        self.register_buffer("pixel_scale", 1 / (255 * torch.tensor(self.transform.std)), persistent=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names: ``kept`` stands for ``kept_1``, ``kept_2``, ..., one a selecting group."""
        selecting = [group for group in self.groups if group.keep is not None]
        names: list[str] = []
        for output in self.outputs:
            names += [f"kept_{i + 1}" for i in range(len(selecting))] if output == "kept" else [output]
        return tuple(names)

    def tokens_of(self, images: Tensor) -> Tensor:
        """Images -> [B, 1 + N, C] tokens."""
        weight = self.patch_embed.weight
        if self.image_input == "uint8":
            images = ((images.to(weight.dtype) - self.pixel_center) * self.pixel_scale).permute(0, 3, 1, 2)
        patches = self.patch_embed(images.to(weight.dtype)).flatten(2).transpose(1, 2)
        patches = patches + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        return torch.cat((first, patches), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        scores: Tensor | None = None
        origin: Tensor | None = None  # where tokens were before an order-free restore moved them
        kept: list[Tensor] = []
        feature: Tensor | None = None
        for group in self.groups:
            last = group is self.groups[-1]
            selection: Selection | None = None
            if group.keep is not None:
                assert scores is not None, "plan() keeps the scores alive that a selecting group reads"
                selection = self.select(self.selection_of, scores, group.keep)
                if "kept" in self.outputs:
                    positions, origin = self.select(self.origins, selection, scores, origin)
                    kept.append(positions)
            x, scores, feature = self.run(group, x, scores, selection, last)
        assert feature is not None
        logits = self.head(self.norm(feature.to(self.norm.weight.dtype))).float()
        results: dict[str, list[Tensor]] = {"logits": [logits], "kept": kept}
        if "probabilities" in self.outputs:
            results["probabilities"] = [logits.softmax(-1)]
        return tuple(tensor for output in self.outputs for tensor in results[output])

    def origins(self, selection: Selection, scores: Tensor, origin: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Original patch positions of the kept, ascending [B, K] int64, and [B, 1 + N] float32 those of all tokens after.

        Args:
            selection: Of this group.
            scores: [B, 1 + N] float32.
            origin: [B, 1 + N] float32, original places in the present order; None when no token has moved.
        """
        places = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float32).expand_as(scores)
        before = (places if origin is None else origin)[..., None]
        chosen = selection.select(before)
        after = origin if selection.in_place else selection.restore(chosen, before)[..., 0]
        return ascending(chosen[:, 1:, 0] - 1), after

    def selection_of(self, scores: Tensor, keep: int) -> Selection:
        """Select the class token and the ``keep`` patch tokens of highest score; scores [B, 1 + N] float32."""
        first = torch.full((1, 1), ALWAYS_KEPT, device=scores.device)
        first = nn.functional.pad(first, (0, scores.shape[1] - 1))
        return PATTERNS[self.pattern](scores + first, keep + 1)

    def run(
        self, group: Group, full: Tensor, before: Tensor | None, selection: Selection | None, last: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run one group on its tokens.

        Args:
            group: Its blocks and score weights.
            full: [B, 1 + N, C], all tokens.
            before: [B, 1 + N] scores from before the group, or None.
            selection: Which of the tokens the group works on; None is all.
            last: Whether the pooled feature is wanted instead of tokens.

        Returns:
            All tokens after the group, all scores after it (None when dead), the pooled feature (None unless last).
        """
        start = full if selection is None else self.select(selection.select, full)
        x = start
        rows: list[Tensor] = []
        for i in group.blocks:
            block: Block = self.blocks[i]  # type: ignore[assignment]
            if last and i == group.stop - 1:
                return x, None, self.finish(block, x, start, full, selection)
            x, row = block(x, i in group.weights)
            if row is not None:
                rows.append(row)
        fresh = self.score(class_attention, rows, [*group.weights.values()]) if rows else None
        if selection is not None:
            x = self.restore(selection.restore, x, full)
        return x, self.score(self.scores_after, group, before, fresh, selection), None

    def scores_after(
        self, group: Group, before: Tensor | None, fresh: Tensor | None, selection: Selection | None
    ) -> Tensor | None:
        """s = carry * before + fresh on the tokens of the group; the bypassed tokens keep their scores.

        Args:
            before: [B, 1 + N] float32, or None.
            fresh: Weighted class attentions of the group [B, M] float32, or None.

        Returns:
            [B, 1 + N] float32, or None when no later group selects by them.
        """
        if fresh is None and not group.carry:
            return None
        after = fresh
        if before is not None and group.carry:
            own = before if selection is None else selection.select(before[..., None])[..., 0]
            after = own * group.carry if fresh is None else own * group.carry + fresh
        if selection is None or after is None or before is None:
            return after
        return selection.restore(after[..., None], before[..., None])[..., 0]

    def finish(self, block: Block, x: Tensor, start: Tensor, full: Tensor, selection: Selection | None) -> Tensor:
        """Last block and pooling -> [B, C] float32.

        Args:
            block: The last block.
            x: [B, M, C], its input.
            start: [B, M, C], the same tokens as they were before its group.
            full: [B, 1 + N, C], all tokens before its group.
            selection: How ``start`` came from ``full``, or None.
        """
        if not self.trim:
            x, _ = block(x)
            x = x if selection is None else self.restore(selection.restore, x, full)
            return x[:, 0].float() if self.pool == "cls" else self.pool_tokens(self.mean, x)
        if self.pool == "cls":  # only the class token's query and MLP are read
            q, k, v = block.attn(block.norm1(x))
            x = x[:, :1] + block.attn.proj(block.attn.attend(q[:, :, :1], k, v))
            return (x + block.fc2(block.hidden(x)))[:, 0].float()
        x, _ = block.mix(x, False)
        return self.pool_tokens(self.pooled, block, x, block.hidden(x), start, full)

    def mean(self, x: Tensor) -> Tensor:
        """[B, 1 + N, C] -> [B, C] float32, the mean over the patch tokens."""
        return x[:, 1:].float().mean(1)

    def pooled(self, block: Block, x: Tensor, hidden: Tensor, start: Tensor, full: Tensor) -> Tensor:
        """Mean over all N patches of x + fc2(hidden), without restoring.

        The bypassed tokens enter as the sum of all less the sum of the kept before their group, so nothing has to know
        which they are; and fc2, being linear, runs once on the mean of its inputs.
        """
        count = self.structure.num_patches
        total = x[:, 1:].float().sum(1)
        if full.shape[1] != x.shape[1]:
            total = (x[:, 1:].float() - start[:, 1:].float()).sum(1) + full[:, 1:].float().sum(1)
        mean_hidden = hidden[:, 1:].float().mean(1).to(hidden.dtype)
        return total / count + block.fc2(mean_hidden).float() * ((x.shape[1] - 1) / count)

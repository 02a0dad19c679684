"""Evo-DeiT, evolved class-token ViTs of timm, and the vanilla models they are compared with, as one inference module.

The whole computation reads top to bottom: `embed`, then group after group of blocks on all tokens or on the kept ones
(`Group`, derived from the recipe), then `pool` and the head. The vanilla twin is the same code without a selecting group
and with the original's pooled feature, so that a comparison of the two compares the method and nothing else.

Tokens are [B, P + N, C]: the class token at place 0, then registers, if the model has them, then the patches. The first P take
part in every selection, with scores that no patch can reach and that keep them at their places.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...recipes import Evolution, Structure, Transform
from ..evolution import PATTERNS, Selection, ascending
from ..ops import Lowered
from ..outputs import numbered
from .layers import Block, Step, class_attention
from .outputs import Features
from .schedule import Group, plan

__all__ = ["VisionTransformer"]


class VisionTransformer(Lowered):
    """A class-token ViT for inference, evolved or vanilla, built for one structure, one schedule and one set of outputs.

    Args:
        structure: Sizes.
        evolution: Keep ratios, tradeoff, schedule; keep ratio 1 everywhere is a vanilla transformer.
        pattern: Selection pattern, one of :data:`.evolution.PATTERNS`; all the same function.
        transform: Needed for uint8 input only.
        image_input: ``float32`` takes [B, 3, S, S] normalised; ``uint8`` takes [B, S, S, 3] as decoded.
        outputs: Any of ``logits``, ``probabilities``, ``kept``, and the features of :mod:`.outputs`.
        trim: Leave out the work of the last block that no output depends on, and let its fc2 commute with the mean.
            Nothing can be left out where every patch token is normed before the mean, or is an output.

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
        pattern: str = "sort",
        transform: Transform | None = None,
        image_input: Literal["float32", "uint8"] = "float32",
        outputs: tuple[str, ...] = ("logits",),
        trim: bool = True,
    ) -> None:
        super().__init__()
        self.structure, self.prefix = structure, structure.prefix_tokens
        self.pattern, self.image_input, self.outputs = pattern, image_input, outputs
        self.groups: list[Group] = plan(evolution, structure.num_patches)
        self.transform = transform or Transform()

        dim, hidden = structure.embed_dim, round(structure.embed_dim * structure.mlp_ratio)
        self.patch_embed = nn.Conv2d(3, dim, structure.patch_size, structure.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, self.prefix, dim))  # and the registers after it
        self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + structure.num_patches, dim))
        self.norm_pre = nn.LayerNorm(dim, structure.norm_eps) if structure.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(dim, structure.num_heads, hidden, structure.activation, structure.norm_eps)
            for _ in range(structure.depth)
        )
        self.embed, self.score, self.select, self.restore, self.pool_tokens = (Step() for _ in range(5))
        self.norm = nn.LayerNorm(dim, structure.norm_eps)
        self.features = Features(outputs, structure)
        self.trim = trim and not self.features.last
        width = dim * max(1, structure.classified)
        self.head = nn.Linear(width, structure.num_classes) if structure.head else nn.Identity()

        # (pixel - center) * scale; folding replaces both by powers of two and integers, exact in FP16.
        self.register_buffer("pixel_center", 255 * torch.tensor(self.transform.mean), persistent=False)
        self.register_buffer("pixel_scale", 1 / (255 * torch.tensor(self.transform.std)), persistent=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names: ``kept`` stands for ``kept_1``, ``kept_2``, ..., one a selecting group."""
        return numbered(self.outputs, kept=sum(group.keep is not None for group in self.groups))

    @property
    def reads_keys(self) -> frozenset[int]:
        """Blocks whose keys something beside the attention reads, so that their bias counts."""
        return frozenset()

    def tokens_of(self, images: Tensor) -> Tensor:
        """Map images -> [B, P + N, C] tokens."""
        weight = self.patch_embed.weight
        if self.image_input == "uint8":
            images = ((images.to(weight.dtype) - self.pixel_center) * self.pixel_scale).permute(0, 3, 1, 2)
        patches = self.ops.patches(self.patch_embed, images.to(weight.dtype)) + self.pos_embed[:, self.prefix :]
        first = (self.cls_token + self.pos_embed[:, : self.prefix]).expand(images.shape[0], -1, -1)
        return self.norm_pre(torch.cat((first, patches), 1))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        scores: Tensor | None = None
        origin: Tensor | None = None  # where tokens were before an order-free restore moved them
        kept: list[Tensor] = []
        after: dict[int, Tensor] = {}  # block -> all tokens after it, for the outputs that are made of them
        feature: Tensor | None = None
        for group in self.groups:
            last = group is self.groups[-1]
            selection: Selection | None = None
            if group.keep is not None:
                assert scores is not None, "plan() keeps the scores alive that a selecting group reads"
                selection = self.select(self.selection_of, scores, group.keep)
                if "kept" in self.outputs or (self.features.places and not selection.in_place):
                    positions, origin = self.select(self.origins, selection, scores, origin)
                    kept.append(positions)
            order: Tensor | None = None
            if origin is not None and self.features.reads(group.blocks):
                order = self.select(self.features.order_of, origin)
            x, scores, feature = self.run(group, x, scores, selection, last, after, order)
        assert feature is not None
        return self.answer(feature, {"kept": kept}, after)

    def answer(self, feature: Tensor, results: dict[str, list[Tensor]], after: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs in order.

        Args:
            feature: The pooled feature, [B, C] float32, or [B, 2, C] when a distillation token is classified too.
            results: Outputs that are known already.
            after: Block -> all tokens after it, patches at their places, for the outputs that are made of them.
        """
        feature = feature.to(self.norm.weight.dtype)
        if self.structure.pool != "normed_patches":
            feature = self.norm(feature)
        logits = self.head(feature.flatten(1)).float()
        results = {**results, "logits": [logits]}
        for output in self.outputs:
            if output == "probabilities":
                results[output] = [logits.softmax(-1)]
            elif output == "embedding":
                results[output] = [self.features.embedding(feature)]
            elif output not in results:
                results[output] = [self.features.tokens(output, after, self.norm)]
        return tuple(tensor for output in self.outputs for tensor in results[output])

    def origins(self, selection: Selection, scores: Tensor, origin: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the original patch positions of the kept, ascending [B, K] int64, and [B, P + N] float32 those of all tokens
        after.

        Args:
            selection: Of this group.
            scores: [B, P + N] float32.
            origin: [B, P + N] float32, original places in the present order; None when no token has moved.
        """
        places = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float32).expand_as(scores)
        before = (places if origin is None else origin)[..., None]
        chosen = selection.select(before)
        after = origin if selection.in_place else selection.restore(chosen, before)[..., 0]
        return ascending(chosen[:, self.prefix :, 0] - self.prefix), after

    def selection_of(self, scores: Tensor, keep: int) -> Selection:
        """Select the first P tokens, which score highest, and the ``keep`` best patch tokens; scores [B, P + N] float32."""
        return PATTERNS[self.pattern](scores, keep + self.prefix, self.ops)

    def run(
        self,
        group: Group,
        full: Tensor,
        before: Tensor | None,
        selection: Selection | None,
        last: bool,
        after: dict[int, Tensor],
        order: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run one group on its tokens.

        Args:
            group: Its blocks and score weights.
            full: [B, P + N, C], all tokens.
            before: [B, P + N] scores from before the group, or None.
            selection: Which of the tokens the group works on; None is all.
            last: Whether the pooled feature is wanted instead of tokens.
            after: Where the tokens after a block are put, if an output is made of them.
            order: [B, P + N] int64, which of all tokens, as they stand after the group, belongs at each place; None when none has
                moved.

        Returns:
            All tokens after the group, all scores after it (None when dead), the pooled feature (None unless last).
        """
        start = full if selection is None else self.select(selection.select, full)
        x = start
        rows: list[Tensor] = []
        whole: Tensor | None = None  # all tokens after the last block that ran, where they are known
        for i in group.blocks:
            block: Block = self.blocks[i]  # type: ignore[assignment]
            if last and i == group.stop - 1 and not self.features.last:
                return x, None, self.finish(block, x, start, full, selection)
            x, row = block(x, i in group.weights)
            if row is not None:
                rows.append(row)
            whole = None
            if i in self.features.blocks:
                whole = x if selection is None else self.restore(selection.restore, x, full)
                after[i] = whole if order is None else self.restore(self.ops.gather_tokens, whole, order)
        if last and self.features.last:
            x = after[group.stop - 1]
            return x, None, self.front(x) if self.structure.classified else self.pool_tokens(self.mean, x)
        fresh = self.score(class_attention, rows, [*group.weights.values()], self.prefix) if rows else None
        if selection is not None:
            x = self.restore(selection.restore, x, full) if whole is None else whole
        return x, self.score(self.scores_after, group, before, fresh, selection), None

    def scores_after(
        self, group: Group, before: Tensor | None, fresh: Tensor | None, selection: Selection | None
    ) -> Tensor | None:
        """Compute s = carry * before + fresh on the tokens of the group; the bypassed tokens keep their scores.

        Args:
            before: [B, P + N] float32, or None.
            fresh: Weighted class attentions of the group [B, M] float32, or None.

        Returns:
            [B, P + N] float32, or None when no later group selects by them.
        """
        if fresh is None and not group.carry:
            return None

        def update(own: Tensor | None) -> Tensor:
            carried = None if own is None or not group.carry else own * group.carry
            both = [part for part in (carried, fresh) if part is not None]
            return both[0] if len(both) == 1 else both[0] + both[1]

        return update(before) if selection is None or before is None else selection.rescore(before, update)

    def finish(self, block: Block, x: Tensor, start: Tensor, full: Tensor, selection: Selection | None) -> Tensor:
        """Last block and pooling -> [B, C] float32, or [B, 2, C] when a distillation token is classified too.

        Args:
            block: The last block.
            x: [B, M, C], its input.
            start: [B, M, C], the same tokens as they were before its group.
            full: [B, P + N, C], all tokens before its group.
            selection: How ``start`` came from ``full``, or None.
        """
        front = self.structure.classified
        if not self.trim or self.structure.pool == "normed_patches":
            x, _ = block(x)
            if front:  # the first tokens are where they were, with or without the bypassed
                return self.front(x)
            x = x if selection is None else self.restore(selection.restore, x, full)
            return self.pool_tokens(self.mean, x)
        if front:  # only these tokens' queries and MLP are read
            x, _ = block.mix(x, False, front)
            return self.front(x + block.fc2(block.hidden(x)))
        x, _ = block.mix(x, False)
        return self.pool_tokens(self.pooled, block, x, block.hidden(x), start, full)

    def front(self, x: Tensor) -> Tensor:
        """Map [B, M, C] -> the classified tokens, [B, C] float32, or [B, 2, C] for two."""
        count = self.structure.classified
        return (x[:, 0] if count == 1 else x[:, :count]).float()

    def mean(self, x: Tensor) -> Tensor:
        """Map [B, P + N, C] -> [B, C] float32, the mean over the patch tokens, normed before it if the model does so."""
        x = x[:, self.prefix :]
        return (self.norm(x) if self.structure.pool == "normed_patches" else x).float().mean(1)

    def pooled(self, block: Block, x: Tensor, hidden: Tensor, start: Tensor, full: Tensor) -> Tensor:
        """Return the mean over all N patches of x + fc2(hidden), without restoring.

        The bypassed tokens enter as the sum of all less the sum of the kept before their group, so nothing has to know
        which they are; and fc2, being linear, runs once on the mean of its inputs.
        """
        count, prefix = self.structure.num_patches, self.prefix
        total = x[:, prefix:].float().sum(1)
        if full.shape[1] != x.shape[1]:
            total = (x[:, prefix:].float() - start[:, prefix:].float()).sum(1) + full[:, prefix:].float().sum(1)
        mean_hidden = hidden[:, prefix:].float().mean(1).to(hidden.dtype)
        return total / count + block.fc2(mean_hidden).float() * ((x.shape[1] - prefix) / count)

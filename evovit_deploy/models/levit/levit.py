"""Evo-LeViT as one inference module: a pure function of the images, with no state between calls.

The whole computation reads top to bottom: `embed`, then stage after stage of groups of blocks (`Stage`, `Group`, derived from
the recipe), each with a subsampling attention after it, then pooling and the heads. Selection is that of Evo-DeiT
(:mod:`.evolution`). What is Evo-LeViT's own: the dropped tokens travel through a group as ONE representative token, and
all receive what its residual branches added up to; and the scores shrink with the grid.

Tokens are [B, 1 + N, C], the class token at place 0. It takes part in every selection with a score no patch can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...recipes import Transform
from ...recipes.levit import LevitEvolution, LevitStructure
from ..evolution import PATTERNS, Selection, kept_positions
from ..ops import Lowered
from ..outputs import numbered
from ..vit.layers import ALWAYS_KEPT, Step
from .layers import Block, Head, Subsample, average, stem
from .schedule import Group, Stage, plan

__all__ = ["EvoLevit", "Pixels"]


class EvoLevit(Lowered):
    """Evo-LeViT for inference, built for one structure, one schedule and one set of outputs.

    Args:
        structure: Sizes.
        evolution: Keep ratios and the number of blocks on all tokens.
        tradeoff: t of every attention in the order they run, those of the subsampling too.
        pattern: Selection pattern: ``topk``, ``rank`` or ``onehot``; all the same function.
        transform: Needed for uint8 input only.
        image_input: ``float32`` takes [B, 3, S, S] normalised; ``uint8`` takes [B, S, S, 3] as decoded.
        outputs: Any of ``logits``, ``probabilities``, ``kept``, ``embedding``.
        trim: Leave out the work of the last group that no output depends on, and let its last fc2 commute with the mean.

    ``forward(images)`` returns a tuple in the order of :attr:`output_names`. Parameters may be FP32, FP16 or BF16; scores,
    ranks, pooling and outputs are FP32 in all of them.
    """

    def __init__(
        self,
        structure: LevitStructure,
        evolution: LevitEvolution,
        tradeoff: Sequence[float],
        *,
        pattern: str = "topk",
        transform: Transform | None = None,
        image_input: Literal["float32", "uint8"] = "float32",
        outputs: tuple[str, ...] = ("logits",),
        trim: bool = True,
    ) -> None:
        super().__init__()
        self.structure, self.pattern, self.image_input = structure, pattern, image_input
        self.outputs, self.trim = outputs, trim
        self.stages: list[Stage] = plan(structure, evolution, tradeoff)

        dims, key_dim, grids = structure.embed_dims, structure.key_dim, structure.grids
        hidden = [round(dim * structure.mlp_ratio) for dim in dims]
        sizes = list(zip(dims, structure.num_heads, hidden, structure.depths))
        self.patch_embed = stem(dims[0])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims[0]))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grids[0] ** 2, dims[0]))
        self.blocks = nn.ModuleList(Block(c, h, key_dim, mlp) for c, h, mlp, depth in sizes for _ in range(depth))
        self.subsamples = nn.ModuleList(
            Subsample(dims[i], dims[i + 1], key_dim, grids[i], hidden[i + 1]) for i in range(len(dims) - 1)
        )
        # Positions before each subsampling attention.
        self.positions = nn.ParameterList(torch.zeros(1, 1 + g * g, c) for g, c in zip(grids, dims[:-1]))
        self.heads = nn.ModuleList(Head(dims[-1], structure.num_classes) for _ in range(1 + structure.distilled))
        self.embed, self.select, self.represent, self.restore, self.scores = Step(), Step(), Step(), Step(), Step()
        self.pool_tokens = Step()
        self.pixels = Pixels(transform or Transform())

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX output names: ``kept`` stands for ``kept_1``, ``kept_2``, ..., one a selecting group."""
        groups = [group for stage in self.stages for group in stage.groups]
        return numbered(self.outputs, kept=sum(group.keep is not None for group in groups))

    def fold_positions(self) -> None:
        """Put the bias of the folded stem and the class token into the position embedding, in place: see :mod:`.folding`."""
        last: Any = self.patch_embed[-1]
        with torch.no_grad():
            self.pos_embed[:, 1:] += last.conv.bias
            self.pos_embed[:, :1] += self.cls_token
            self.cls_token.zero_()
        last.conv.bias = None

    def tokens_of(self, images: Tensor) -> Tensor:
        """Map images -> [B, 1 + N, C] tokens."""
        dtype = self.cls_token.dtype
        if self.image_input == "uint8":
            images = self.pixels(images)
        patches = self.patch_embed(images.to(dtype)).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        return torch.cat((first, patches), 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map [B, 3, S, S] float32 or [B, S, S, 3] uint8 -> tuple of outputs, see :attr:`output_names`."""
        x = self.embed(self.tokens_of, images)
        scores: Tensor | None = None
        kept: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            for group in stage.groups:
                if group.stop == len(self.blocks):
                    feature = self.finish(group, x, scores, kept)
                else:
                    x, scores = self.run(group, x, scores, kept)
            if number < len(self.subsamples):
                x, scores = self.shrink(number, x, scores)
        logits = average([head(feature).float() for head in self.heads])
        results: dict[str, list[Tensor]] = {"logits": [logits], "kept": kept, "embedding": [feature.float()]}
        if "probabilities" in self.outputs:
            results["probabilities"] = [logits.softmax(-1)]
        return tuple(tensor for output in self.outputs for tensor in results[output])

    def run(self, group: Group, x: Tensor, before: Tensor | None, kept: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Run one group on the class token, the patches it keeps and the representative of the others.

        Args:
            group: Its blocks and score weights.
            x: [B, 1 + N, C], all tokens.
            before: [B, 1 + N] scores from before the group, or None.
            kept: Where the positions of the kept patches are put, if they are an output.

        Returns:
            All tokens and all scores after the group (None when dead).
        """
        if group.keep is None:
            x, fresh = self.run_blocks(group, x)
            return x, self.scores(self.blend, group, before, fresh)
        assert before is not None, "plan() keeps the scores alive that a selecting group reads"
        selection, weights = self.choose(group.keep, before, kept)
        representative = self.represent(torch.matmul, weights.to(x.dtype), x)
        tokens, fresh = self.run_blocks(group, torch.cat((self.select(selection.select, x), representative), 1))
        update = tokens[:, -1:] - representative  # what the residual branches of the group added up to
        x = self.restore(selection.restore, tokens[:, :-1], x + update)
        return x, self.scores(self.blend_kept, group, before, fresh, selection)

    def finish(self, group: Group, x: Tensor, before: Tensor | None, kept: list[Tensor]) -> Tensor:
        """Run the last group and pool: as :meth:`run`, but -> [B, C], the mean over all N patches."""
        if not self.trim:
            x, _ = self.run(group, x, before, kept)
            return x[:, 1:].float().mean(1).to(x.dtype)
        patches, others = x.shape[1] - 1, None
        # Of each token in the sum over all patches: the class token has none, the representative stands for all dropped.
        weights = torch.tensor([0.0] + [1.0] * patches, device=x.device)
        if group.keep is not None:
            assert before is not None, "plan() keeps the scores alive that a selecting group reads"
            selection, share = self.choose(group.keep, before, kept)
            dropped = patches - group.keep
            representative = self.represent(torch.matmul, share.to(x.dtype), x)
            # Every dropped token ends as x + (representative after - representative before).
            others = self.pool_tokens(self.sum_dropped, x, selection) - dropped * representative.float()
            x = torch.cat((self.select(selection.select, x), representative), 1)
            weights = torch.tensor([0.0] + [1.0] * group.keep + [float(dropped)], device=x.device)
        *blocks, last = (self.blocks[i] for i in group.blocks)
        for block in blocks:
            x, _ = block(x)
        x, _ = last.mix(x)  # type: ignore[operator]
        return self.pool_tokens(self.pooled, last, x, weights / patches, others, patches).to(x.dtype)

    def run_blocks(self, group: Group, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return blocks of a group on its tokens [B, M, C], and their weighted class rows [B, M] float32 (None when dead)."""
        logits: list[Tensor] = []
        for i in group.blocks:
            x, row = self.blocks[i](x, i in group.weights)
            logits += [] if row is None else [row]
        if not logits:
            return x, None
        return x, self.scores(self.class_rows, logits, [group.weights[i] for i in group.blocks])

    def class_rows(self, logits: list[Tensor], weights: list[float]) -> Tensor:
        """sum_i weight_i * (sum over heads of softmax(logits_i)): [B, H, M] float32 each -> [B, M]; one softmax for all."""
        rows = torch.cat(logits, 1).softmax(-1)
        heads = torch.tensor(weights, device=rows.device).repeat_interleave(logits[0].shape[1])
        return (rows * heads[:, None]).sum(1)

    def choose(self, keep: int, scores: Tensor, kept: list[Tensor]) -> tuple[Selection, Tensor]:
        """Return the selection of the class token and the top ``keep`` patches; weights [B, 1, 1 + N] of the representative."""
        selection: Selection = self.select(self.selection_of, scores, keep)
        if "kept" in self.outputs:
            kept.append(self.select(self.positions_of, selection, keep))
        return selection, self.represent(self.representative_of, scores, selection)

    def selection_of(self, scores: Tensor, keep: int) -> Selection:
        """Return the selection of the class token and the top ``keep`` patches."""
        first = torch.zeros(scores.shape[1], dtype=scores.dtype, device=scores.device)
        first[0] = ALWAYS_KEPT
        return PATTERNS[self.pattern](scores + first, keep + 1, self.ops)

    def positions_of(self, selection: Selection, keep: int) -> Tensor:
        """Return the positions of the kept patches on this stage's grid, ascending: [B, keep] int64."""
        return kept_positions(selection.kept()[:, 1:], keep)

    def representative_of(self, scores: Tensor, selection: Selection) -> Tensor:
        """Return the dropped tokens weighted by s / (sum of s over the dropped): [B, 1, 1 + N] float32."""
        share = torch.where(selection.kept(), torch.zeros_like(scores), scores)
        return (share / share.sum(1, keepdim=True))[:, None]

    def blend(self, group: Group, before: Tensor | None, fresh: Tensor | None) -> Tensor | None:
        """Compute s = carry * before + fresh."""
        if fresh is None or before is None or not group.carry:
            return fresh
        return before * group.carry + fresh

    def blend_kept(self, group: Group, before: Tensor, fresh: Tensor | None, selection: Selection) -> Tensor | None:
        """As :meth:`blend` on the kept tokens; the dropped keep their scores, the representative has none."""
        if fresh is None:
            return None
        moved = selection.restore(fresh[:, :-1, None], torch.zeros_like(before)[..., None])[..., 0]
        return torch.where(selection.kept(), before * group.carry + moved, before)

    def shrink(self, number: int, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Subsampling attention after stage ``number``: [B, 1 + N, C] -> [B, 1 + N', C'], and scores likewise."""
        stage, subsample = self.stages[number], self.subsamples[number]
        q, k, v = subsample(x + self.positions[number])
        x = subsample.mix(q, k, v)  # type: ignore[operator]
        if not stage.weight or before is None:
            return x, None
        logits = subsample.class_attention(q, k)  # type: ignore[operator]
        row = self.scores(self.class_rows, [logits], [stage.weight])
        return x, self.scores(self.shrink_scores, stage, before, row, subsample.taken)

    def shrink_scores(self, stage: Stage, before: Tensor, row: Tensor, taken: Tensor) -> Tensor:
        """Return the scores of the tokens taken along, scaled so that their sum over the patches stays what it was."""
        scores = (before * stage.carry + row)[:, taken]
        return scores * (before[:, 1:].sum(1, keepdim=True) / scores[:, 1:].sum(1, keepdim=True))

    def sum_dropped(self, x: Tensor, selection: Selection) -> Tensor:
        """Return the sum of the dropped tokens: [B, 1, C] float32."""
        return ((~selection.kept()).to(x.dtype)[:, None] @ x).float()

    def pooled(self, block: Block, x: Tensor, weights: Tensor, others: Tensor | None, patches: int) -> Tensor:
        """Return the weighted sum of x + mlp(x) over tokens, plus ``others / patches``; fc2, being linear, runs once on the
        sum.

        Exact because the weights of all patches sum to 1: fc2's bias enters once.
        """
        hidden = (weights @ block.mlp.hidden(x).float()).to(x.dtype)
        total = weights @ x.float()
        if others is not None:
            total = total + others[:, 0] / patches
        return total + block.mlp.fc2(hidden[:, None])[:, 0].float()


class Pixels(nn.Module):
    """Normalisation of decoded images, in FP32 whatever the precision of the model.

    The padding of the stem is zero, which is the mean pixel; so the mean is subtracted here, and not folded into the convolution.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        # No buffers: those would be rounded along with the weights.
        self.mean = [255 * value for value in transform.mean]
        self.scale = [1 / (255 * value) for value in transform.std]

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, S, S, 3] uint8 -> [B, 3, S, S] float32: (pixel - mean) * scale."""
        mean, scale = (torch.tensor(values, device=images.device) for values in (self.mean, self.scale))
        return ((images.float() - mean) * scale).permute(0, 3, 1, 2)

"""What a search may change about the evolution of a class-token ViT, and what a schedule costs before it is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ...errors import RecipeError
from ...recipes import Evolution, Recipe, Structure
from ..space import Axis, Space
from .schedule import plan

__all__ = ["block_macs", "space", "work"]

REACH = 2  # blocks that a stage may start earlier or later


def space(recipe: Recipe, steps: tuple[float, ...]) -> Space:
    """See :attr:`.Family.space`: a keep ratio for every stage, and the block where it starts.

    A tradeoff belongs to its block and stays there.
    """
    structure, own = recipe.parts(Structure, Evolution)
    starts, depth = own.stage_starts, len(own.keep_ratios)
    ratios = tuple(sorted({1.0, *steps}, reverse=True))
    places = tuple(tuple(range(max(1, start - REACH), min(depth, start + REACH + 1))) for start in starts)
    axes = [Axis(f"keep ratio of stage {number}", ratios) for number, _ in enumerate(starts, 1)]
    axes += [Axis(f"first block of stage {number}", found, False) for number, found in enumerate(places, 1)]

    def evolve(values: tuple[float, ...]) -> Evolution:
        moved = tuple(int(value) for value in values[len(starts) :])
        before = 1.0
        for ratio, place, first in zip(values, moved, starts):
            if before == ratio == 1 and place != first:
                raise RecipeError(f"block {place} begins a stage that changes nothing.")  # one function, one point
            before = ratio
        still = dataclasses.replace(own, keep_ratios=(1.0,) * depth, stage_starts=moved)
        found = still.with_keep(values[: len(starts)])
        plan(found, structure.num_patches)  # or it keeps no patch
        return found

    def name(values: tuple[float, ...]) -> str:
        moved = values[len(starts) :]
        at = () if moved == starts else ("at", *(f"{place:g}" for place in moved))
        return "_".join((own.schedule, *(f"{ratio:g}" for ratio in values[: len(starts)]), *at))

    start = (0,) * len(starts) + tuple(found.index(at) for found, at in zip(places, starts))
    return Space(recipe, tuple(axes), start, evolve, name)


def work(recipe: Recipe) -> float:
    """See :attr:`.Family.work`; the class rows and the selection itself, some thousandths of it, are left out."""
    structure, evolution = recipe.parts(Structure, Evolution)
    tokens = [
        structure.prefix_tokens + (structure.num_patches if group.keep is None else group.keep)
        for group in plan(evolution, structure.num_patches)
        for _ in group.blocks
    ]
    return block_macs(structure, ((count, count) for count in tokens))


def block_macs(structure: Structure, tokens: Iterable[tuple[int, int]]) -> float:
    """Return the multiply-accumulates of all blocks and the patch embedding for one image.

    Args:
        structure: Sizes.
        tokens: In the attention and in the MLP of every block, prefix tokens included.
    """
    dim, hidden = structure.embed_dim, round(structure.embed_dim * structure.mlp_ratio)
    mlp = dim * hidden * (1.5 if structure.activation == "swiglu" else 2)
    stem = structure.num_patches * 3 * structure.patch_size**2 * dim
    return stem + sum(4 * n * dim**2 + 2 * n**2 * dim + m * mlp for n, m in tokens)

"""What a search may change about the evolution of a class-token ViT, and what a schedule costs before it is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ...errors import RecipeError
from ...recipes import Evolution, Recipe, Structure
from ..families import Rates
from ..space import RATIOS, Axis, Space, ladder
from .evit_recipe import Fusion
from .schedule import plan

__all__ = ["block_macs", "fusing_space", "fusing_work", "space", "work"]

REACH = 2  # blocks that a stage may start earlier or later


def space(recipe: Recipe, rates: Rates) -> Space:
    """See :attr:`.Family.space`: a keep ratio for every stage, and the block where it starts.

    A tradeoff belongs to its block and stays there.
    """
    structure, own = recipe.parts(Structure, Evolution)
    starts, depth = own.stage_starts, len(own.keep_ratios)
    tried = tuple(dict.fromkeys(rates.keep or RATIOS))
    ratios, places = ladder(tried), [around(start, depth) for start in starts]
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
    return Space(recipe, tuple(axes), start, tried, evolve, name)


def fusing_space(recipe: Recipe, rates: Rates) -> Space:
    """As :func:`space`, for EViT: a keep ratio for every place, and the block that it is."""
    _, own = recipe.parts(Structure, Fusion)
    depth, tried = len(own.keep_ratios), tuple(dict.fromkeys(rates.keep or RATIOS))
    ratios, places = ladder(tried), [around(place, depth) for place in own.places]
    axes = [Axis(f"keep ratio of place {number}", ratios) for number, _ in enumerate(own.places, 1)]
    axes += [Axis(f"block of place {number}", found, False) for number, found in enumerate(places, 1)]

    def evolve(values: tuple[float, ...]) -> Fusion:
        moved = tuple(int(value) for value in values[len(own.places) :])
        for ratio, place, first in zip(values, moved, own.places):
            if ratio == 1 and place != first:
                raise RecipeError(f"block {place} is a place that changes nothing.")  # one function, one point
        still = dataclasses.replace(own, keep_ratios=(1.0,) * depth, places=moved)
        return still.with_keep(values[: len(own.places)])

    def name(values: tuple[float, ...]) -> str:
        moved = values[len(own.places) :]
        at = () if moved == own.places else ("at", *(f"{place:g}" for place in moved))
        return "_".join(("stage", *(f"{ratio:g}" for ratio in values[: len(own.places)]), *at))

    start = (0,) * len(own.places) + tuple(found.index(at) for found, at in zip(places, own.places))
    return Space(recipe, tuple(axes), start, tried, evolve, name)


def around(place: int, depth: int) -> tuple[int, ...]:
    """Return the blocks where something may happen that happens before or in block ``place`` of a network."""
    return tuple(range(max(1, place - REACH), min(depth, place + REACH + 1)))


def work(recipe: Recipe) -> float:
    """See :attr:`.Family.work`; the class rows and the selection itself, some thousandths of it, are left out."""
    structure, evolution = recipe.parts(Structure, Evolution)
    tokens = [
        structure.prefix_tokens + (structure.num_patches if group.keep is None else group.keep)
        for group in plan(evolution, structure.num_patches)
        for _ in group.blocks
    ]
    return block_macs(structure, ((count, count) for count in tokens))


def fusing_work(recipe: Recipe) -> float:
    """As :func:`work`, for EViT, which leaves tokens out between attention and MLP."""
    structure, fusion = recipe.parts(Structure, Fusion)
    left, patches, tokens = fusion.left(structure.num_patches), structure.num_patches, list[tuple[int, int]]()
    for block in range(structure.depth):
        before = patches
        if block in left:
            patches = left[block] + fusion.fuse
        tokens.append((structure.prefix_tokens + before, structure.prefix_tokens + patches))
    return block_macs(structure, tokens)


def block_macs(structure: Structure, tokens: Iterable[tuple[int, int]]) -> float:
    """Return the multiply-accumulates of all blocks and the patch embedding for one image.

    Args:
        structure: Sizes.
        tokens: In the attention and in the MLP of every block, prefix tokens included.
    """
    dim, hidden, front = structure.embed_dim, round(structure.embed_dim * structure.mlp_ratio), structure.classified
    mlp = dim * hidden * (1.5 if structure.activation == "swiglu" else 2)
    found: float = structure.num_patches * 3 * structure.patch_size**2 * dim
    *others, (n, m) = tokens
    found += sum(4 * n * dim**2 + 2 * n**2 * dim + m * mlp for n, m in others)
    if front:  # the last block: only the tokens that are classified ask, and go through the MLP
        return found + 2 * n * dim**2 + front * (2 * dim**2 + 2 * n * dim + mlp)
    return found + 4 * n * dim**2 + 2 * n**2 * dim + m * mlp * (0.5 if structure.pool == "patches" else 1)

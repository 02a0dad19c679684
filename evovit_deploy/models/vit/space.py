"""What a search may change about the evolution of a class-token ViT, and what a schedule costs before it is exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from ...errors import RecipeError
from ...recipes import Evolution, Recipe, Structure
from ...recipes.forms import TokenEvolution
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

    def evolve(ratios: tuple[float, ...], starts: tuple[int, ...]) -> Evolution:
        before = 1.0
        for ratio, start, first in zip(ratios, starts, own.stage_starts):
            if before == ratio == 1 and start != first:
                raise RecipeError(f"block {start} begins a stage that changes nothing.")  # one function, one point
            before = ratio
        still = dataclasses.replace(own, keep_ratios=(1.0,) * len(own.keep_ratios), stage_starts=starts)
        found = still.with_keep(ratios)
        plan(found, structure.num_patches)  # or it keeps no patch
        return found

    return _placed(recipe, rates, own.stage_starts, ("stage", "first block of stage"), own.schedule, evolve)


def fusing_space(recipe: Recipe, rates: Rates) -> Space:
    """As :func:`space`, for EViT: a keep ratio for every place, and the block that it is."""
    _, own = recipe.parts(Structure, Fusion)

    def evolve(ratios: tuple[float, ...], places: tuple[int, ...]) -> Fusion:
        for ratio, place, first in zip(ratios, places, own.places):
            if ratio == 1 and place != first:
                raise RecipeError(f"block {place} is a place that changes nothing.")  # one function, one point
        still = dataclasses.replace(own, keep_ratios=(1.0,) * len(own.keep_ratios), places=places)
        return still.with_keep(ratios)

    return _placed(recipe, rates, own.places, ("place", "block of place"), "stage", evolve)


def _placed(
    recipe: Recipe,
    rates: Rates,
    own: tuple[int, ...],
    words: tuple[str, str],
    schedule: str,
    evolve: Callable[[tuple[float, ...], tuple[int, ...]], TokenEvolution],
) -> Space:
    """A keep ratio for each of some blocks, and which blocks they are.

    Args:
        recipe, rates: See :attr:`.Family.space`.
        own: The blocks of the recipe.
        words: What one is called, and what its block.
        schedule: The first part of the candidates' names.
        evolve: Ratios and blocks -> the evolution.
    """
    count, tried = len(own), tuple(dict.fromkeys(rates.keep or RATIOS))
    ratios, blocks = ladder(tried), [around(block, recipe.network(Structure).depth) for block in own]
    axes = [Axis(f"keep ratio of {words[0]} {number}", ratios) for number in range(1, count + 1)]
    axes += [Axis(f"{words[1]} {number}", found, False) for number, found in enumerate(blocks, 1)]

    def evolved(values: tuple[float, ...]) -> TokenEvolution:
        return evolve(values[:count], tuple(int(value) for value in values[count:]))

    def name(values: tuple[float, ...]) -> str:
        moved = values[count:]
        at = () if moved == own else ("at", *(f"{block:g}" for block in moved))
        return "_".join((schedule, *(f"{ratio:g}" for ratio in values[:count]), *at))

    start = (0,) * count + tuple(found.index(block) for found, block in zip(blocks, own))
    return Space(recipe, tuple(axes), start, tried, evolved, name)


def around(place: int, depth: int) -> tuple[int, ...]:
    """Return the blocks where something may happen that happens before or in block ``place`` of a network.

    Block 0 is among them only for what happens there already: the class token's attention to the patches as they come in says
    little.
    """
    return tuple(range(max(min(1, place), place - REACH), min(depth, place + REACH + 1)))


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

"""What a search may change about the evolution of (Evo-)LeViT, and what a schedule costs before it is exported."""

from __future__ import annotations

import dataclasses

from ...recipes import LevitEvolution, LevitStructure, Recipe
from ..families import Rates
from ..space import RATIOS, Axis, Space, ladder
from .facts import schedule

__all__ = ["space", "work"]


def space(recipe: Recipe, rates: Rates) -> Space:
    """See :attr:`.Family.space`: a keep ratio for every group; where groups begin is the network's own."""
    _, own = recipe.parts(LevitStructure, LevitEvolution)
    tried = tuple(dict.fromkeys(rates.keep or RATIOS))
    ratios = ladder(tried)
    axes = tuple(Axis(f"keep ratio of group {number}", ratios) for number, _ in enumerate(own.keep_ratios, 1))

    def evolve(values: tuple[float, ...]) -> LevitEvolution:
        found = own.with_keep(values)
        schedule(dataclasses.replace(recipe, evolution=found))  # or it keeps no patch
        return found

    def name(values: tuple[float, ...]) -> str:
        return "_".join(("stage", *(f"{ratio:g}" for ratio in values)))

    return Space(recipe, axes, (0,) * len(axes), tried, evolve, name)


def work(recipe: Recipe) -> float:
    """See :attr:`.Family.work`: of the blocks; what stands between them is the same in all schedules."""
    levit, _ = recipe.parts(LevitStructure, LevitEvolution)
    found = 0.0
    for group in schedule(recipe)["groups"]:
        stage = group["stage"] - 1
        dim, keys = levit.embed_dims[stage], levit.num_heads[stage] * levit.key_dim
        tokens = 1 + group["patches"] + group["selects"]  # with class token and representative
        block = tokens * dim * (6 * keys + 2 * round(dim * levit.mlp_ratio)) + 3 * tokens**2 * keys
        found += block * (group["last_block"] - group["first_block"] + 1)
    return found

"""What a recipe of (Evo-)LeViT says, as plain values: sizes, token evolution, and the grids that are selected on."""

from __future__ import annotations

from typing import Any

from ...recipes import LevitEvolution, LevitStructure, Recipe
from .schedule import plan

__all__ = ["grids", "schedule", "sizes"]

_SIZES = {
    "128S": (128, 256, 384, 2, 3, 4),
    "128": (128, 256, 384, 4, 4, 4),
    "192": (192, 288, 384, 4, 4, 4),
    "256": (256, 384, 512, 4, 4, 4),
    "384": (384, 512, 768, 4, 4, 4),
}  # by embed dims and depths


def sizes(recipe: Recipe) -> dict[str, Any]:
    """See :attr:`.Family.sizes`; where stages differ, a list with one value a stage."""
    levit, _ = recipe.parts(LevitStructure, LevitEvolution)
    return {
        "size": next((name for name, sizes in _SIZES.items() if sizes == (*levit.embed_dims, *levit.depths)), None),
        "image_size": levit.image_size,
        "patch_size": levit.patch_size,
        "num_patches": [grid * grid for grid in levit.grids],
        "embed_dim": list(levit.embed_dims),
        "num_heads": list(levit.num_heads),
        "key_dim": levit.key_dim,
        "depth": list(levit.depths),
        "mlp_ratio": levit.mlp_ratio,
        "num_classes": levit.num_classes,
        "distilled": levit.distilled,
    }


def schedule(recipe: Recipe) -> dict[str, Any]:
    """See :attr:`.Family.schedule`; the tradeoff is learned, so none is listed."""
    structure, evolution = recipe.parts(LevitStructure, LevitEvolution)
    learned = [0.5] * (
        sum(structure.depths) + len(structure.depths) - 1
    )  # any values: which rows live does not depend on them
    groups = [
        {
            "first_block": group.first,
            "last_block": group.stop - 1,
            "stage": number + 1,
            "patches": grid * grid if group.keep is None else group.keep,
            "selects": group.keep is not None,
            "class_attention": sorted(group.weights),
        }
        for number, (stage, grid) in enumerate(zip(plan(structure, evolution, learned), structure.grids))
        for group in stage.groups
    ]
    return {
        "schedule": "stage",
        "full_blocks": evolution.full_blocks,
        "keep_ratios": list(evolution.keep_ratios),
        "tradeoff": None,
        "groups": groups,
    }


def grids(recipe: Recipe) -> tuple[int, ...]:
    """See :attr:`.Family.grids`: that of its stage, for every group that selects."""
    structure, evolution = recipe.parts(LevitStructure, LevitEvolution)
    ratios = evolution.keep_ratios  # one a stage, or none for the first
    return tuple(grid for grid, ratio in zip(structure.grids[-len(ratios) :], ratios) if ratio < 1)

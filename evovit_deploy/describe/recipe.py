"""Sizes and token evolution of a recipe as plain dictionaries, for both families."""

from __future__ import annotations

from typing import Any

from ..recipes import LEVIT, VIT, Recipe

__all__ = ["describe_schedule", "describe_sizes"]

_SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base"}  # the paper's names, by embed dim and depth
_LEVIT_SIZES = {
    "128S": (128, 256, 384, 2, 3, 4),
    "128": (128, 256, 384, 4, 4, 4),
    "192": (192, 288, 384, 4, 4, 4),
    "256": (256, 384, 512, 4, 4, 4),
    "384": (384, 512, 768, 4, 4, 4),
}  # by embed dims and depths


def describe_sizes(recipe: Recipe) -> dict[str, Any]:
    """Return the sizes of a network; those of (Evo-)LeViT are lists, one value per stage, where stages differ."""
    if recipe.family in LEVIT:
        levit, _ = recipe.as_levit
        return {
            "size": next(
                (name for name, sizes in _LEVIT_SIZES.items() if sizes == (*levit.embed_dims, *levit.depths)), None
            ),
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
    structure, _ = recipe.as_deit
    return {
        "size": _SIZES.get((structure.embed_dim, structure.depth)),
        "image_size": structure.image_size,
        "patch_size": structure.patch_size,
        "num_patches": structure.num_patches,
        "embed_dim": structure.embed_dim,
        "num_heads": structure.num_heads,
        "depth": structure.depth,
        "mlp_ratio": structure.mlp_ratio,
        "num_classes": structure.num_classes,
    }


def describe_schedule(recipe: Recipe) -> dict[str, Any]:
    """Return the token evolution of a recipe: schedule, keep ratios and tradeoff per block, and the groups they lead to.

    A group is ``first_block``, ``last_block``, ``patches`` (patch tokens its blocks run on), ``selects`` (whether they
    are a choice) and ``class_attention`` (blocks whose class attention is computed).
    """
    if recipe.family in LEVIT:
        return _levit_schedule(recipe)
    from ..models.vit.schedule import plan

    structure, evolution = recipe.as_deit
    patches = structure.num_patches
    groups = [
        {
            "first_block": group.first,
            "last_block": group.stop - 1,
            "patches": patches if group.keep is None else group.keep,
            "selects": group.keep is not None,
            "class_attention": sorted(group.weights),
        }
        for group in plan(evolution, patches)
    ]
    return {
        **({"registers": structure.registers} if recipe.family in VIT else {}),
        "schedule": evolution.schedule,
        "stage_starts": list(evolution.stage_starts),
        "keep_ratios": list(evolution.keep_ratios),
        "tradeoff": list(evolution.tradeoff),
        "groups": groups,
    }


def _levit_schedule(recipe: Recipe) -> dict[str, Any]:
    """As :func:`describe_schedule`; the tradeoff is learned, so none is listed."""
    from ..models.levit.schedule import plan

    structure, evolution = recipe.as_levit
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

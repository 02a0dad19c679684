"""What a recipe of a class-token ViT says, as plain values: sizes, token evolution, and the grids that are selected on."""

from __future__ import annotations

from typing import Any

from ...recipes import Evolution, Recipe, Structure
from .schedule import plan

__all__ = ["grids", "schedule", "sizes", "timm_schedule"]

_SIZES = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base"}  # the paper's names, by embed dim and depth


def sizes(recipe: Recipe) -> dict[str, Any]:
    """See :attr:`.Family.sizes`."""
    structure = recipe.network(Structure)
    return {
        "size": _SIZES.get((structure.embed_dim, structure.depth)),
        "image_size": structure.image_size,
        "patch_size": structure.patch_size,
        "num_patches": structure.num_patches,
        "embed_dim": structure.embed_dim,
        "num_heads": structure.num_heads,
        "depth": structure.depth,
        "mlp_ratio": structure.mlp_ratio,
        "num_classes": structure.num_classes if structure.head else 0,
    }


def schedule(recipe: Recipe) -> dict[str, Any]:
    """Return the token evolution of a recipe: schedule, keep ratios and tradeoff per block, and the groups they lead to.

    A group is ``first_block``, ``last_block``, ``patches`` (patch tokens its blocks run on), ``selects`` (whether they
    are a choice) and ``class_attention`` (blocks whose class attention is computed).
    """
    structure, evolution = recipe.parts(Structure, Evolution)
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
        "schedule": evolution.schedule,
        "stage_starts": list(evolution.stage_starts),
        "keep_ratios": list(evolution.keep_ratios),
        "tradeoff": list(evolution.tradeoff),
        "groups": groups,
    }


def timm_schedule(recipe: Recipe) -> dict[str, Any]:
    """As :func:`schedule`, with the registers, which only ViTs of timm have."""
    structure = recipe.network(Structure)
    return {"registers": structure.registers, **schedule(recipe)}


def grids(recipe: Recipe) -> tuple[int, ...]:
    """See :attr:`.Family.grids`: the only grid there is, once a selection."""
    structure, evolution = recipe.parts(Structure, Evolution)
    side = structure.image_size // structure.patch_size
    return (side,) * sum(group.keep is not None for group in plan(evolution, structure.num_patches))

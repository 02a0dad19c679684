"""What a recipe of a class-token ViT says, as plain values: sizes, token evolution, and the grids that are selected on."""

from __future__ import annotations

from typing import Any

from ...recipes import Evolution, Recipe, Structure
from .evit_recipe import Fusion
from .schedule import plan

__all__ = ["fusing_grids", "fusing_schedule", "grids", "schedule", "sizes", "timm_schedule"]

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


def fusing_schedule(recipe: Recipe) -> dict[str, Any]:
    """As :func:`schedule`, for EViT: ``places`` and ``fuse``, no tradeoff.

    A group is the blocks whose attention runs on the same tokens; the last of them keeps fewer for its MLP. ``fused`` says
    whether one for the rest is among them.
    """
    structure, fusion = recipe.parts(Structure, Fusion)
    left, tokens, groups, first, fused = fusion.left(structure.num_patches), structure.num_patches, [], 0, False
    for stop in (*(block + 1 for block in left), structure.depth):
        if first < stop:
            places = [block for block in range(first, stop) if block in left]
            groups.append(
                {
                    "first_block": first,
                    "last_block": stop - 1,
                    "patches": tokens,
                    "selects": first > 0,
                    "fused": fused,
                    "class_attention": places,
                }
            )
            first, fused = stop, fusion.fuse
            tokens = left.get(stop - 1, tokens)
    return {
        "registers": structure.registers,
        "schedule": "stage",
        "places": list(fusion.places),
        "keep_ratios": list(fusion.keep_ratios),
        "fuse": fusion.fuse,
        "groups": groups,
    }


def fusing_grids(recipe: Recipe) -> tuple[int, ...]:
    """See :attr:`.Family.grids`."""
    structure, fusion = recipe.parts(Structure, Fusion)
    return (structure.image_size // structure.patch_size,) * len(fusion.left(structure.num_patches))


def grids(recipe: Recipe) -> tuple[int, ...]:
    """See :attr:`.Family.grids`: the only grid there is, once a selection."""
    structure, evolution = recipe.parts(Structure, Evolution)
    side = structure.image_size // structure.patch_size
    return (side,) * sum(group.keep is not None for group in plan(evolution, structure.num_patches))

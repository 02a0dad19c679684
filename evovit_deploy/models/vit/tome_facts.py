"""What a recipe of merged tokens says, as plain values: the tokens of every block, and the grid that they come from."""

from __future__ import annotations

from typing import Any

from ...recipes import Recipe, Structure
from .tome_recipe import Merging

__all__ = ["grids", "schedule"]


def schedule(recipe: Recipe) -> dict[str, Any]:
    """Return the merging of a recipe: r per block, as it is asked for, and the groups of blocks that it leads to.

    A group is ``first_block``, ``last_block``, ``patches`` (patch tokens that come in), ``merges`` (how many of them are merged
    after the attention, which may be fewer than r), ``selects`` (no) and ``class_attention`` (none).
    """
    structure, merging = recipe.parts(Structure, Merging)
    patches, groups = structure.num_patches, list[dict[str, Any]]()
    for block, merges in enumerate(merging.counts(structure)):
        if merges == 0 and groups and groups[-1]["merges"] == 0:
            groups[-1]["last_block"] = block
        else:
            groups.append(
                {
                    "first_block": block,
                    "last_block": block,
                    "patches": patches,
                    "merges": merges,
                    "selects": False,
                    "class_attention": [],
                }
            )
        patches -= merges
    return {
        "registers": structure.registers,
        "schedule": merging.schedules[0],
        "r": list(merging.r),
        "patches_left": patches,
        "groups": groups,
    }


def grids(recipe: Recipe) -> tuple[int, ...]:
    """See :attr:`.Family.grids`: the only grid there is, once a block that merges."""
    structure, merging = recipe.parts(Structure, Merging)
    side = structure.image_size // structure.patch_size
    return (side,) * sum(r > 0 for r in merging.counts(structure))

"""What several commands accept as a model: a checkpoint, or a recipe with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, RecipeError

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

__all__ = ["open_checkpoint"]


def open_checkpoint(
    path: Path | None,
    *,
    recipe: str | None = None,
    keep: str | None = None,
    schedule: str | None = None,
    num_heads: int | None = None,
    img_size: int | None = None,
    ema: bool = False,
    random_weights: bool = False,
    seed: int = 0,
) -> Checkpoint:
    """Load a checkpoint (or make one with random weights) and apply ``--keep`` and ``--schedule``.

    Raises:
        InputError: Options that do not go together.
        CheckpointError, RecipeError: See ``load_checkpoint`` and ``load_recipe``.
    """
    from ..checkpoint import load_checkpoint, random_checkpoint
    from ..recipes import Evolution, load_recipe

    if random_weights:
        if recipe is None:
            raise InputError("--random-weights needs --recipe NAME, such as evo_deit_small_patch16_224.")
        checkpoint = random_checkpoint(load_recipe(recipe), seed)
    else:
        assert path is not None
        checkpoint = load_checkpoint(path, recipe=recipe, num_heads=num_heads, image_size=img_size, ema=ema)
    evolution = checkpoint.recipe.evolution
    if schedule is not None:
        if not isinstance(evolution, Evolution):
            raise InputError("--schedule is for Evo-DeiT; Evo-LeViT has the stage schedule only. Leave --schedule out.")
        evolution = dataclasses.replace(evolution, schedule=schedule)  # type: ignore[arg-type]
    if keep is not None:
        try:
            ratios = tuple(float(part) for part in keep.split(","))
        except ValueError:
            raise RecipeError(f"--keep {keep!r} is not a list of numbers; for example: --keep 0.7,0.5") from None
        evolution = evolution.with_keep(ratios)
    return dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, evolution=evolution))

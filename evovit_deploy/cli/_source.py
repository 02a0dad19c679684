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
    from_timm: str | None = None,
    pool: str | None = None,
) -> Checkpoint:
    """Load a checkpoint (or make one with random weights) and apply ``--keep`` and ``--schedule``.

    With ``from_timm``, ``path`` holds the weights of that model of timm; without ``path`` they are random.

    Raises:
        InputError: Options that do not go together.
        CheckpointError, RecipeError: See ``load_checkpoint`` and ``load_recipe``.
    """
    from ..checkpoint import load_checkpoint, random_checkpoint, timm_recipe
    from ..checkpoint.timm import accuracy_note
    from ..recipes import Evolution, load_recipe

    if pool is not None and from_timm is None:
        raise InputError("--pool is for timm models; give one with --from-timm NAME.")
    if from_timm is not None and path is None:
        if num_heads is not None or ema:
            raise InputError("--num-heads and --ema are for checkpoints; random weights have neither. Leave them out.")
        checkpoint = random_checkpoint(timm_recipe(from_timm, recipe=recipe, image_size=img_size, pool=pool), seed)
    elif random_weights:
        if recipe is None:
            raise InputError("--random-weights needs --recipe NAME, such as evo_deit_small_patch16_224.")
        checkpoint = random_checkpoint(load_recipe(recipe), seed)
    else:
        assert path is not None
        checkpoint = load_checkpoint(
            path, recipe=recipe, num_heads=num_heads, image_size=img_size, ema=ema, timm=from_timm, pool=pool
        )
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
    changed = dataclasses.replace(checkpoint.recipe, evolution=evolution)
    warning = accuracy_note(changed)
    notes = tuple(note for note in checkpoint.notes if keep is None or not note.startswith("keep ratios ("))
    if keep is not None:
        notes = (*notes, f"keep ratios ({keep}) are those of --keep")
    notes = notes if warning is None else (*notes, warning)
    return dataclasses.replace(checkpoint, recipe=changed, notes=notes)

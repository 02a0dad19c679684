"""Is the transform that images get the one that a model was exported with?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..recipes import Recipe, Transform
    from .base import Engine
    from .opening import OpenOptions

__all__ = ["settle_transform", "settle_transforms", "transform_difference"]


def transform_difference(found: Transform, wanted: Transform) -> str:
    """Return the fields that differ, in words: ``resize_ratio 1 instead of 1.14``; empty if none does."""
    return ", ".join(
        f"{field.name} {getattr(found, field.name)} instead of {getattr(wanted, field.name)}"
        for field in dataclasses.fields(found)
        if getattr(found, field.name) != getattr(wanted, field.name)
    )


def settle_transform(engine: Engine, recipe: Recipe | None) -> str | None:
    """Check a model's transform against a recipe, or take the recipe's where the file does not say.

    Args:
        engine: Opened; its ``spec`` gets the recipe's transform if it has none.
        recipe: What the user expects, or None.

    Returns:
        What was assumed, or None.

    Raises:
        InputError: The model was exported with a different transform than the recipe's.
    """
    spec = engine.spec
    if spec.transform is None:
        if recipe is None:
            return (
                f"{spec.name} does not say how its images are prepared; the ImageNet transform is used (shorter side to "
                f"256/224 of {spec.image_size}, bicubic, centre crop, mean and std of ImageNet)"
            )
        engine.spec = dataclasses.replace(spec, transform=recipe.transform)
        return f"{spec.name} does not say how its images are prepared; the transform of {recipe.name} is used"
    if recipe is not None and (difference := transform_difference(spec.transform, recipe.transform)):
        raise InputError(
            f"{spec.name} was exported with a different transform than recipe {recipe.name}: {difference}. Evaluate without "
            "--recipe to use its own, or export it again with this recipe."
        )
    return None


def settle_transforms(engines: Sequence[Engine], options: OpenOptions, note: Callable[[str], None]) -> None:
    """Settle the transform of every model, against the recipe that they were opened with if there is one.

    Args:
        engines: Opened; see :func:`settle_transform`.
        options: What they were opened with.
        note: Called with what was assumed.

    Raises:
        InputError, RecipeError: See :func:`settle_transform` and :func:`load_recipe`.
    """
    from ..recipes import load_recipe

    recipe = None if options.checkpoint is None else options.checkpoint.recipe
    expected = load_recipe(recipe) if isinstance(recipe, str) else recipe
    for engine in engines:
        assumed = settle_transform(engine, expected)
        if assumed:
            note(assumed)

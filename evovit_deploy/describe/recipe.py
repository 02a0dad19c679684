"""Sizes and token evolution of a recipe as plain dictionaries, as its family says them."""

from __future__ import annotations

from typing import Any

from ..models.families import family_of
from ..recipes import Recipe

__all__ = ["describe_schedule", "describe_sizes"]


def describe_sizes(recipe: Recipe) -> dict[str, Any]:
    """Return the sizes of a network; lists, one value per stage, where stages differ."""
    return family_of(recipe).sizes(recipe)


def describe_schedule(recipe: Recipe) -> dict[str, Any]:
    """Return the token evolution of a recipe: schedule, keep ratios and tradeoff per block, and the groups they lead to.

    A group is ``first_block``, ``last_block``, ``patches`` (patch tokens its blocks run on), ``selects`` (whether they
    are a choice) and ``class_attention`` (blocks whose class attention is computed).
    """
    return family_of(recipe).schedule(recipe)

"""Bounds of what a recipe says: numbers that no model has are refused before anything is computed or allocated with them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

from ..errors import RecipeError

__all__ = ["MOST", "MOST_CLASSES", "keep_ratios", "number", "whole"]

MOST = 1 << 14  # pixels a side, channels, blocks, heads: far above any model
MOST_CLASSES = 1 << 20


def whole(name: str, value: object, *, least: int = 1, most: int = MOST, why: str = "") -> None:
    """Raise RecipeError unless ``value`` is a whole number in the range.

    Args:
        name: Of the value in the recipe, such as ``structure.depth``.
        value: As read.
        least, most: The range.
        why: A reason for the range, for the message.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        reason = f": {why}" if why else ""
        raise RecipeError(f"{name} is {_shown(value)}; it must be a whole number of at least {least}{reason}.")
    if value > most:
        raise RecipeError(f"{name} is {_shown(value)}; it must be {most} at most.")


def number(name: str, value: object, least: float, most: float, *, above: bool = False) -> None:
    """Raise RecipeError unless ``value`` is a number from ``least`` to ``most``; with ``above``, more than ``least``."""
    fits = isinstance(value, Real) and not isinstance(value, bool)
    try:
        figure = float(value) if fits else math.nan  # type: ignore[arg-type]
    except OverflowError:
        figure = math.nan
    if not (least < figure <= most if above else least <= figure <= most):
        bound = f"above {least:g}" if above else f"of at least {least:g}"
        raise RecipeError(f"{name} is {_shown(value)}; it must be a number {bound} and at most {most:g}.")


def keep_ratios(ratios: Iterable[float]) -> None:
    """Raise RecipeError for a keep ratio that is none: it is above 0 and at most 1."""
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise RecipeError(f"keep ratio {ratio:g} is impossible; a keep ratio is above 0 and at most 1.")


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."

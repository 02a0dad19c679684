"""The grid of a sweep: keep ratios, the same in all stages or one per stage, in one or both schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ..errors import InputError
from ..recipes import Recipe

__all__ = ["Candidate", "candidates"]

MOST = 200


@dataclass(frozen=True)
class Candidate:
    """One point of the grid.

    Attributes:
        name: Schedule and ratios, e.g. ``stage_0.7_0.5``; ``full`` for the model that keeps every patch.
        recipe: The recipe with this schedule and these ratios.
    """

    name: str
    recipe: Recipe


def candidates(
    recipe: Recipe, ratios: Sequence[float], *, per_stage: bool = False, schedules: Sequence[str] = ("stage",)
) -> list[Candidate]:
    """Return the full model first, then every combination.

    Args:
        recipe: Of the checkpoint.
        ratios: Keep ratios in (0, 1]; 1 in every stage is the full model, which is there anyway.
        per_stage: All combinations of ratios over the stages instead of the same in all.
        schedules: ``stage``, ``layer`` or both.

    Raises:
        InputError: More than 200 combinations, or a recipe without stages.
        RecipeError: An impossible ratio.
    """
    if refused := [name for name in schedules if name not in recipe.evolution.schedules]:
        valid = ", ".join(recipe.evolution.schedules)
        raise InputError(f"{recipe.name} has no {refused[0]} schedule. Use --schedule {valid}.")
    stages = len(recipe.evolution.stage_ratios)
    if not stages:
        raise InputError(f"{recipe.name} selects no patches in any stage, so there is nothing to sweep.")
    combinations = list(product(ratios, repeat=stages)) if per_stage else [(ratio,) * stages for ratio in ratios]
    combinations = list(dict.fromkeys(combinations))
    if len(combinations) * len(schedules) > MOST:
        raise InputError(
            f"{len(combinations) * len(schedules)} combinations are more than {MOST}; give fewer ratios, or leave out "
            "--per-stage."
        )
    found = [Candidate("full", _with(recipe, (1.0,) * stages, recipe.evolution.schedules[0]))]
    for schedule in schedules:
        for combination in combinations:
            if set(combination) != {1.0}:
                name = "_".join((schedule, *(f"{ratio:g}" for ratio in combination)))
                found.append(Candidate(name, _with(recipe, combination, schedule)))
    return found


def _with(recipe: Recipe, ratios: tuple[float, ...], schedule: str) -> Recipe:
    return dataclasses.replace(recipe, evolution=recipe.evolution.with_keep(ratios).with_schedule(schedule))

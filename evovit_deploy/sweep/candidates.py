"""The grid of a sweep: keep ratios, the same in all stages or one per stage, in one or both schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..models.families import Rates, family_of
from ..models.space import Point, Space
from ..recipes import Recipe

__all__ = ["Candidate", "candidate_at", "candidates", "space_of"]

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
    recipe: Recipe,
    ratios: Sequence[float] | None = None,
    *,
    r: Sequence[float] | None = None,
    per_stage: bool = False,
    schedules: Sequence[str] = (),
) -> list[Candidate]:
    """Return the full model first, then every combination.

    Args:
        recipe: Of the checkpoint.
        ratios: Keep ratios in (0, 1]; 1 in every stage is the full model, which is there anyway. None is the family's choice.
        r: Tokens merged a block, of a family that merges; None is the family's choice.
        per_stage: All combinations over the stages instead of the same in all.
        schedules: ``stage``, ``layer`` or both; empty is the first that the family has.

    Raises:
        InputError: More than 200 combinations, or a recipe without stages.
        RecipeError: An impossible ratio.
    """
    own = recipe.evolution.schedules
    if refused := [name for name in schedules if name not in own]:
        raise InputError(f"{recipe.name} has no {refused[0]} schedule, only {', '.join(own)}. Leave --schedule out.")
    whole = space_of(recipe, ratios, r)
    start = dataclasses.replace(recipe, evolution=whole.evolve(whole.values(whole.start)))
    found = [Candidate("full", _in(start, own[0]))]
    for schedule in schedules or own[:1]:
        space = space_of(_in(start, schedule), ratios, r)
        axes = sum(axis.amount for axis in space.axes) if per_stage else 1
        if (count := len(space.tried) ** axes * max(1, len(schedules))) > MOST:
            raise InputError(f"{count} combinations are more than {MOST}; give fewer ratios, or leave out --per-stage.")
        points = space.combinations() if per_stage else map(space.same, space.tried)
        found += [candidate_at(space, point) for point in points if point != space.start]
    return found


def space_of(recipe: Recipe, ratios: Sequence[float] | None, r: Sequence[float] | None) -> Space:
    """Return the schedules to choose from, with the amounts that the family has.

    Raises:
        InputError: There is nothing to choose.
        RecipeError: An impossible ratio.
    """
    family = family_of(recipe)
    rates = Rates(None if ratios is None else tuple(ratios), None if r is None else tuple(r))
    space = None if family.space is None else family.space(recipe, rates)
    if space is None or not any(axis.amount for axis in space.axes):
        raise InputError(f"{recipe.name} selects no patches in any stage, so there is nothing to sweep.")
    return space


def candidate_at(space: Space, point: Point) -> Candidate:
    """Return the candidate at a point of a space.

    Raises:
        RecipeError: Values that do not go together, or not in this network.
    """
    values = space.values(point)
    evolution = space.evolve(values)
    evolution.check(space.recipe.structure)
    return Candidate(space.name(values), dataclasses.replace(space.recipe, evolution=evolution))


def _in(recipe: Recipe, schedule: str) -> Recipe:
    return dataclasses.replace(recipe, evolution=recipe.evolution.with_schedule(schedule))

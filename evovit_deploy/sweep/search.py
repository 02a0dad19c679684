"""`sweep --search`: from what has been measured to the schedule to try next.

A hill climb on a grid of schedules (:mod:`..models.space`), for one of two goals:

- **A largest drop**: from the cheapest schedules within it, a step further, if that is less work than the cheapest of all; the
  largest saving first. What leaves out at least as much everywhere as one that dropped by more is not tried.
- **A latency alone**: from the most accurate schedules within it, a step further, if that still fits; the most work first. What
  leaves out at least as much everywhere as one that fits is not tried.

Work is the family's estimate; a latency is predicted from it by a line through what has been measured. Nothing is random: the
same outcomes lead to the same schedules, and that is how a search goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from ..errors import InputError
from ..models.families import family_of
from ..models.space import Point, Space
from ..recipes import Recipe
from .candidates import Candidate, candidate_at, space_of
from .front import Outcome, comparable

__all__ = ["BEAM", "Search"]

BEAM = 3  # schedules whose neighbours are looked at


@dataclass
class Search:
    """What has been tried, and what comes next.

    Attributes:
        space: All schedules.
        work: Recipe -> estimated multiply-accumulates.
        full: The candidate that keeps every patch.
        max_drop, budget_ms: The goal, as for :func:`.front.choose`; one of them at least.
        found: Point -> its outcome.
    """

    space: Space
    work: Callable[[Recipe], float]
    full: Candidate
    max_drop: float | None = None
    budget_ms: float | None = None
    found: dict[Point, Outcome] = field(default_factory=dict)
    _works: dict[Point, float] = field(default_factory=dict)

    @classmethod
    def around(
        cls,
        full: Candidate,
        schedule: str | None,
        ratios: Sequence[float] | None = None,
        r: Sequence[float] | None = None,
        *,
        max_drop: float | None = None,
        budget_ms: float | None = None,
    ) -> Search:
        """Return the search around the places of a recipe.

        Args:
            full: The candidate that keeps every patch.
            schedule: In which all are; None is the first that the family has.
            ratios, r: To choose from, as for :func:`.candidates`.
            max_drop, budget_ms: The goal.

        Raises:
            InputError: A family that cannot be searched, or nothing to change.
            RecipeError: An impossible amount.
        """
        own = full.recipe.evolution
        schedule = schedule or own.schedules[0]
        recipe = dataclasses.replace(full.recipe, evolution=own.with_schedule(schedule))
        space, work = space_of(recipe, ratios, r), family_of(recipe).work
        assert work is not None, "a family with a space has one"
        points = [space.same(amount) for amount in space.tried]
        for point in points:
            candidate_at(space, point)
        if not set(points) - {space.start}:
            raise InputError("there is nothing to search: the values to try leave nothing out. Give others.")
        return cls(space, work, full, max_drop, budget_ms)

    def candidate(self, point: Point) -> Candidate:
        """Return the candidate at a point."""
        return self.full if point == self.space.start else candidate_at(self.space, point)

    def next(self) -> Point | None:
        """Return what to try next: the full model, the same amount in all stages, then a step from the best.

        Returns:
            None when every neighbour of the best has been tried, or cannot be better.
        """
        uniform = (self.space.start, *map(self.space.same, self.space.tried))
        first = (point for point in uniform if point not in self.found)
        return next(first, None) or next(self._steps(), None)

    def work_at(self, point: Point) -> float:
        """Return the estimated multiply-accumulates at a point."""
        if point not in self._works:
            self._works[point] = self.work(self.candidate(point).recipe)
        return self._works[point]

    def _steps(self) -> Iterator[Point]:
        """Steps from the best schedules within the goal, those to try first in front."""
        if self.max_drop is not None:
            good = [point for point, one in self.found.items() if one.drop <= self.max_drop]
            good.sort(key=lambda point: (self.work_at(point), point))
            hopeless = [point for point in self.found if point not in good]
            most, sign = (self.work_at(good[0]) if good else inf), 1
            nearest = sorted(self.found, key=lambda point: (self.found[point].drop, point))
        else:
            latency = comparable(list(self.found.values()))
            if latency[self.found[self.space.start].key] <= (self.budget_ms or 0):
                return  # the full model fits
            good = [point for point, one in self.found.items() if latency[one.key] <= (self.budget_ms or 0)]
            good.sort(key=lambda point: (self.found[point].drop, self.work_at(point), point))
            hopeless, most, sign = good, self._affordable(latency), -1
            nearest = sorted(self.found, key=lambda point: (latency[self.found[point].key], point))
        for base in (good or nearest)[:BEAM]:
            steps = [
                point
                for point in dict.fromkeys(self.space.neighbours(base))
                if point not in self.found
                and (self.work_at(point) < most if sign > 0 else self.work_at(point) <= most)
                and not any(self.space.leaves_out_no_less(point, other) for other in hopeless)
            ]
            yield from sorted(steps, key=lambda point: (sign * self.work_at(point), point))

    def _affordable(self, latency: dict[str, float]) -> float:
        """The most work whose predicted latency is within the budget."""
        works = [self.work_at(point) for point in self.found]
        times = [latency[one.key] for one in self.found.values()]
        slope, first = (times[0] / works[0], 0.0) if len(set(works)) < 2 else np.polyfit(works, times, 1)
        return float(((self.budget_ms or 0) - first) / slope) if slope > 0 else inf

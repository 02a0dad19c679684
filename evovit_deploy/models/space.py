"""What a search may change about a schedule: a grid of values, and the recipe at each of its points.

A family gives its space (:attr:`.Family.space`); a search knows nothing of the family but this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product

from ..errors import RecipeError
from ..recipes import Recipe
from ..recipes.bounds import keep_ratios
from ..recipes.forms import TokenEvolution

__all__ = ["RATIOS", "Axis", "Point", "Space", "ladder"]

RATIOS = (0.3, 0.5, 0.7, 0.9)  # keep ratios that are tried where none are given
Point = tuple[int, ...]  # the number of its value on every axis


@dataclass(frozen=True)
class Axis:
    """One value of a schedule.

    Attributes:
        name: For people, such as ``keep ratio of stage 1``.
        values: To choose from; of an amount, from the one that leaves nothing out to the one that leaves most out.
        amount: Whether it says how much is left out. Else it says where, and neither direction is less work by itself.
    """

    name: str
    values: tuple[float, ...]
    amount: bool = True


@dataclass(frozen=True)
class Space:
    """All schedules that a search may try.

    Attributes:
        recipe: What is varied.
        axes: In what.
        start: The point of the recipe's own places, at which nothing is left out.
        tried: The amounts that were asked for, in that order.
        evolve: One value an axis -> the evolution; raises RecipeError for values that do not go together.
        name: One value an axis -> name of the candidate, part of a file name; different for different values.
    """

    recipe: Recipe
    axes: tuple[Axis, ...]
    start: Point
    tried: tuple[float, ...]
    evolve: Callable[[tuple[float, ...]], TokenEvolution]
    name: Callable[[tuple[float, ...]], str]

    def values(self, point: Point) -> tuple[float, ...]:
        """Return the value on every axis."""
        return tuple(axis.values[at] for axis, at in zip(self.axes, point))

    def same(self, amount: float) -> Point:
        """Return the point with the same amount on every axis of amounts, at the places of ``start``."""
        return tuple(axis.values.index(amount) if axis.amount else at for axis, at in zip(self.axes, self.start))

    def combinations(self) -> Iterator[Point]:
        """Yield every combination of the amounts that were asked for, at the places of ``start``."""
        ways = [
            [axis.values.index(amount) for amount in self.tried] if axis.amount else [at]
            for axis, at in zip(self.axes, self.start)
        ]
        yield from product(*ways)

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Yield what one step on one axis reaches, then an amount a step more and another a step less."""
        moves = [(at, way) for at in range(len(self.axes)) for way in (1, -1)]
        amounts = [at for at, axis in enumerate(self.axes) if axis.amount]
        steps = [[move] for move in moves]
        steps += [[(more, 1), (less, -1)] for more, less in permutations(amounts, 2)]
        for step in steps:
            found = list(point)
            for at, way in step:
                found[at] += way
            if all(0 <= at < len(axis.values) for at, axis in zip(found, self.axes)) and self.possible(tuple(found)):
                yield tuple(found)

    def possible(self, point: Point) -> bool:
        """Return whether the values go together in this network."""
        try:
            self.evolve(self.values(point)).check(self.recipe.structure)
        except RecipeError:
            return False
        return True

    def leaves_out_no_less(self, point: Point, other: Point) -> bool:
        """Return whether a point leaves out at least as much as another everywhere, at the same places."""
        return all(
            mine >= theirs if axis.amount else mine == theirs for axis, mine, theirs in zip(self.axes, point, other)
        )


def ladder(ratios: tuple[float, ...]) -> tuple[float, ...]:
    """Return keep ratios as the values of an axis: all patches first, then less and less.

    Raises:
        RecipeError: An impossible one.
    """
    keep_ratios(ratios)
    return tuple(sorted({1.0, *ratios}, reverse=True))

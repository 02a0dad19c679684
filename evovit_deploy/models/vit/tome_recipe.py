"""Which blocks of a plain ViT merge how many tokens (ToMe): the evolution table of its recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import RecipeError
from ...recipes import Structure
from ...recipes.bounds import whole

__all__ = ["Merging", "most_merged", "sloped", "start"]

SHARE = 0.8  # of the patches, merged in all: r = 13 for the 12 blocks and 196 patches of a small ViT, as in the paper


def most_merged(tokens: int, prefix: int) -> int:
    """Return the most tokens that one block can merge: half of the patch tokens, of ``tokens`` with class token and registers."""
    return max(0, (tokens - prefix) // 2)


@dataclass(frozen=True)
class Merging:
    """Token merging (ToMe, section 3): how many tokens every block merges into others.

    Attributes:
        r: One per block, from 0. A block merges at most half of its patch tokens, whatever is asked for, as in the authors' code.
    """

    r: tuple[int, ...]

    def __post_init__(self) -> None:
        for block, count in enumerate(self.r):
            whole(f"evolution.r[{block}]", count, least=0)

    def counts(self, structure: Structure) -> tuple[int, ...]:
        """Return the tokens that every block merges in a network of this structure."""
        tokens, found = structure.prefix_tokens + structure.num_patches, []
        for r in self.r:
            found.append(min(r, most_merged(tokens, structure.prefix_tokens)))
            tokens -= found[-1]
        return tuple(found)

    def with_r(self, given: tuple[float, ...]) -> Merging:
        """Return the same network's merging with another r: one for all blocks; r and its slope; or one per block.

        Raises:
            RecipeError: A number of values that is none of these, or values that are no counts.
        """
        depth = len(self.r)
        if len(given) == 1:
            return Merging((_count(given[0]),) * depth)
        if len(given) == depth:
            return Merging(tuple(_count(value) for value in given))
        first = _count(given[0]) if len(given) == 2 else 8
        if len(given) == 2 and -1 <= given[1] <= 1:
            return Merging(sloped(first, given[1], depth))
        raise RecipeError(
            f"{len(given)} values of r given ({', '.join(f'{value:g}' for value in given)}); valid: 1 (merged in every block), "
            f"{depth} (one per block), or r and its slope from -1 to 1, such as {max(1, first)},-1 (decreasing)."
        )

    @property
    def keep_ratios(self) -> tuple[float, ...]:
        """None: every patch goes on, alone or in a merged token."""
        return ()

    stage_ratios = keep_ratios

    @property
    def left_out(self) -> str:
        """How much is merged, for people: ``r 8``; empty where nothing is."""
        r = sorted(set(self.r))
        return "" if not any(r) else f"r {r[0]}" if len(r) == 1 else f"r {r[0]} to {r[-1]}"

    @property
    def schedules(self) -> tuple[str, ...]:
        """Valid schedules: every block merges."""
        return ("block",)

    def with_keep(self, ratios: tuple[float, ...]) -> Merging:
        """Raise RecipeError: there is nothing to keep."""
        raise RecipeError("token merging keeps no share of the patches; r says how many tokens every block merges.")

    def with_schedule(self, schedule: str) -> Merging:
        """Return the same: there is one schedule."""
        return self

    def check(self, structure: Structure) -> None:
        """Raise RecipeError if this is not the merging of such a network."""
        depth, patches = structure.depth, structure.num_patches
        if len(self.r) != depth:
            raise RecipeError(f"evolution has {len(self.r)} values of r for {depth} blocks; they are one per block.")
        if sum(self.r) >= patches:
            raise RecipeError(
                f"r adds up to {sum(self.r)} over {depth} blocks, and there are {patches} patches: no token would be left. The "
                f"largest r for all blocks is {(patches - 1) // depth}."
            )

    def facts(self) -> dict[str, Any]:
        """Return what decides about the function."""
        return {"r": self.r}


def sloped(r: int, slope: float, depth: int) -> tuple[int, ...]:
    """Return one r per block whose mean is about ``r``: from 2 r down to 0 at slope -1, from 0 up to 2 r at slope 1."""
    first = int(r * (1.0 - slope))
    step = (2 * (r - first)) / max(1, depth - 1)
    return tuple(int(first + step * block) for block in range(depth))


def start(structure: Structure) -> Merging:
    """Return what is merged unless something else is said: the same in every block, four fifths of the patches in all."""
    return Merging((int(SHARE * structure.num_patches / structure.depth),) * structure.depth)


def _count(value: float) -> int:
    if not (0 <= value < math.inf) or value != int(value):  # nan is neither
        raise RecipeError(f"r {value:g} is impossible; r is a number of tokens, from 0.")
    return int(value)

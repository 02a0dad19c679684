"""Where a ViT keeps its attentive tokens and fuses the others (EViT): the evolution table of its recipes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ...errors import RecipeError
from ...recipes import Structure
from ...recipes.bounds import keep_ratios, whole
from ...recipes.forms import kept_said

__all__ = ["Fusion", "start"]

KEEP = 0.7  # of the published models, at blocks 3, 6 and 9 of 12


@dataclass(frozen=True)
class Fusion:
    """Token reorganisation (EViT, section 3): between attention and MLP of some blocks the attentive tokens are kept.

    Attributes:
        keep_ratios: One per block, in (0, 1]; 1 keeps all. Of n tokens beside class token and registers, a fused one included,
            ceil(n * ratio) are kept.
        places: The blocks that may leave tokens out, ascending; all others have ratio 1.
        fuse: Whether the others become one token (else they are gone).
    """

    keep_ratios: tuple[float, ...]
    places: tuple[int, ...] = (3, 6, 9)
    fuse: bool = True

    def __post_init__(self) -> None:
        keep_ratios(self.keep_ratios)
        if not isinstance(self.fuse, bool):
            raise RecipeError(f"evolution.fuse is {self.fuse!r}; valid: true, false.")
        depth = len(self.keep_ratios)
        for place in self.places:
            whole("evolution.places", place, least=0)
        if list(self.places) != sorted(set(self.places)) or any(place >= depth for place in self.places):
            raise RecipeError(
                f"evolution.places {list(self.places)} must be ascending block numbers from 0 to {depth - 1}."
            )
        if (
            where := next((i for i, r in enumerate(self.keep_ratios) if r < 1 and i not in self.places), None)
        ) is not None:
            raise RecipeError(
                f"keep ratio {self.keep_ratios[where]:g} in block {where}, which is not among evolution.places "
                f"{list(self.places)}."
            )

    @classmethod
    def at(cls, depth: int, places: tuple[int, ...], keep: float, fuse: bool = True) -> Fusion:
        """Return the same keep ratio at some blocks of ``depth``."""
        if outside := [place for place in places if not 0 <= place < depth]:
            raise RecipeError(f"there is no block {outside[0]} to leave tokens out in; blocks are 0 to {depth - 1}.")
        return cls(tuple(keep if block in places else 1.0 for block in range(depth)), places, fuse)

    def left(self, patches: int) -> dict[int, int]:
        """Return block -> K, the tokens that it keeps beside class token and registers, where it leaves any out.

        Args:
            patches: N.
        """
        found, tokens = {}, patches
        for block, ratio in enumerate(self.keep_ratios):
            keep = math.ceil(tokens * ratio)
            if keep < tokens:
                found[block] = keep
                tokens = keep + self.fuse
        return found

    def with_keep(self, ratios: tuple[float, ...]) -> Fusion:
        """Return the same places with other keep ratios: one for all, or one per place; or one per block, and the places are
        those below 1.

        Raises:
            RecipeError: Wrong number of ratios, or a ratio outside (0, 1].
        """
        depth, places = len(self.keep_ratios), self.places
        if len(ratios) == 1:
            ratios = ratios * len(places)
        if len(ratios) == len(places):
            at = dict(zip(places, ratios))
            return dataclasses.replace(self, keep_ratios=tuple(at.get(block, 1.0) for block in range(depth)))
        if len(ratios) != depth:
            raise RecipeError(
                f"{len(ratios)} keep ratios given; valid: 1 (for all places), {len(places)} (one per place: blocks "
                f"{', '.join(map(str, places))}) or {depth} (one per block)."
            )
        below = tuple(block for block, ratio in enumerate(ratios) if ratio < 1)
        return dataclasses.replace(self, keep_ratios=tuple(ratios), places=below or places)

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        """Keep ratio of every place."""
        return tuple(self.keep_ratios[place] for place in self.places)

    @property
    def left_out(self) -> str:
        """How much is left out, for people."""
        return kept_said(self.keep_ratios)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Valid schedules: what is left out stays out."""
        return ("stage",)

    def with_schedule(self, schedule: str) -> Fusion:
        """Return the same.

        Raises:
            RecipeError: Another schedule.
        """
        if schedule not in self.schedules:
            raise RecipeError(f"schedule is {schedule!r}; EViT has 'stage' only.")
        return self

    def check(self, structure: Structure) -> None:
        """Raise RecipeError if this is not for such a network."""
        if len(self.keep_ratios) != structure.depth:
            raise RecipeError(f"evolution has {len(self.keep_ratios)} keep_ratios for {structure.depth} blocks.")

    def facts(self) -> dict[str, Any]:
        """Return what decides about the function."""
        return {"places": self.places, "keep ratios": self.stage_ratios, "fused token": self.fuse}


def start(depth: int) -> Fusion:
    """Return the published places, blocks 3, 6 and 9 of 12, for another depth, with keep ratio 0.7 and a fused token."""
    places = tuple(sorted({round(depth * part / 4) for part in (1, 2, 3)} & set(range(1, depth))))
    return Fusion.at(depth, places, KEEP)

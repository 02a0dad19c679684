"""What recipes of a family are made of. Every family registers its form; a recipe is read and checked by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import RecipeError
from ..suggest import did_you_mean

__all__ = ["FORMS", "Form", "Network", "TokenEvolution", "form_of", "kept_said"]


class Network(Protocol):
    """What every family's ``structure`` says, whatever else it holds: a frozen dataclass that checks itself."""

    @property
    def image_size(self) -> int:
        """S, pixels a side."""

    @property
    def patch_size(self) -> int:
        """Pixels a side of a patch."""

    @property
    def num_classes(self) -> int:
        """Classes, or the width of the features of a model without a head."""

    @property
    def head(self) -> bool:
        """Whether there is a classifier."""

    @property
    def prefix_tokens(self) -> int:
        """P, the tokens before the patches."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, as it stands in a recipe."""


class TokenEvolution(Protocol):
    """What every family's ``evolution`` says: how many patches take part, and where. A frozen dataclass."""

    @property
    def keep_ratios(self) -> tuple[float, ...]:
        """Shares of the patches, each in (0, 1]; what each is for is the family's."""

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        """The share of every stage that selects: what ``with_keep`` takes one of a stage."""

    @property
    def schedules(self) -> tuple[str, ...]:
        """Valid schedules."""

    @property
    def left_out(self) -> str:
        """How much is left out, for people: ``keep ratio 0.5, 0.7``; empty where nothing is."""

    def with_keep(self, ratios: tuple[float, ...]) -> TokenEvolution:
        """Return the same with other shares: one for all, or one a stage."""

    def with_schedule(self, schedule: str) -> TokenEvolution:
        """Return the same in another of its schedules."""

    def check(self, structure: Any) -> None:
        """Raise RecipeError if this is not the evolution of such a network."""

    def facts(self) -> dict[str, Any]:
        """Return what decides about the function that is computed, by a name for people."""


@dataclass(frozen=True)
class Form:
    """The two tables of a family's recipes, as dataclasses: see :class:`Network` and :class:`TokenEvolution`."""

    structure: type[Any]
    evolution: type[Any]


def kept_said(ratios: tuple[float, ...]) -> str:
    """Say which keep ratios leave something out, ``keep ratio 0.5, 0.7``; empty where none does."""
    below = sorted({f"{ratio:g}" for ratio in ratios if ratio < 1})
    return f"keep ratio {', '.join(below)}" if below else ""


FORMS: dict[str, Form] = {}  # by the name of the family, evolved or vanilla


def form_of(family: object) -> Form:
    """Return the form of a family's recipes.

    Raises:
        RecipeError: No such family.
    """
    form = FORMS.get(family) if isinstance(family, str) else None
    if form is None:
        hint = did_you_mean(family, FORMS) if isinstance(family, str) else ""
        raise RecipeError(f"family is {ascii(family)[:80]}; valid: {', '.join(FORMS)}.{hint}")
    return form

"""Recipes: what a checkpoint does not say about its model.

An Evo-ViT checkpoint holds weights only; keep ratios, tradeoff and schedule live in the authors' code. A recipe is one
TOML file in ``export/`` with those, the structure, the eval transform, the tolerances and the published numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import RecipeError
from ..storage.shipped import data_names, find_data_file
from ..storage.tables import build_table, read_toml
from ..suggest import did_you_mean
from .bounds import number
from .forms import Network, TokenEvolution, form_of
from .levit import LevitEvolution, LevitStructure
from .vit import Evolution, Structure

__all__ = [
    "Evolution",
    "LevitEvolution",
    "LevitStructure",
    "Published",
    "Recipe",
    "Structure",
    "Tolerance",
    "Transform",
    "baseline_names",
    "baselines",
    "load_recipe",
    "recipe_names",
]

PRECISIONS = ("fp32", "fp16", "bf16")
S = TypeVar("S")
E = TypeVar("E")


@dataclass(frozen=True)
class Transform:
    """Eval transform: resize the shorter side to ``resize_ratio`` x image size, centre crop, normalise."""

    resize_ratio: float = 256 / 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear"):
            raise RecipeError(f"transform.interpolation is {self.interpolation!r}; valid: 'bicubic', 'bilinear'.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise RecipeError("transform.mean and transform.std are three numbers each, std above 0.")
        for mean, std in zip(self.mean, self.std):
            number("transform.mean", mean, -1e3, 1e3)
            number("transform.std", std, 1e-6, 1e3)
        number("transform.resize_ratio", self.resize_ratio, 1, 16)


@dataclass(frozen=True)
class Tolerance:
    """What ``verify`` accepts between two runs of the same model.

    Attributes:
        max_abs: Largest absolute difference of a logit, relative to the largest absolute reference logit or 1.
            Also how far from the cut a patch may be that only one of them keeps, relative to the score at the cut.
        min_cosine: Smallest cosine similarity of an image's logits.
        min_top1: Share of images whose top-1 class agrees; 0 leaves it to the rule that a different class has to be
            explained by the reference's margin, which holds in any case.
        min_jaccard: Mean Jaccard index of the kept sets, in each stage.
    """

    max_abs: float
    min_cosine: float
    min_top1: float
    min_jaccard: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number(name, value, 0, 1 if name.startswith("min_") else 1e6)


DEFAULT_TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(max_abs=1e-4, min_cosine=0.99999, min_top1=1.0, min_jaccard=1.0),
    "fp16": Tolerance(max_abs=0.05, min_cosine=0.999, min_top1=0.0, min_jaccard=0.9),
    "bf16": Tolerance(max_abs=0.25, min_cosine=0.98, min_top1=0.0, min_jaccard=0.8),
}


@dataclass(frozen=True)
class Published:
    """Figures of the paper (V100, PyTorch eager, FP32, batch 256), for comparison only."""

    top1: float | None = None
    images_per_second: float | None = None
    baseline_top1: float | None = None
    baseline_images_per_second: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "source":
                _text(f"published.{name}", value)
            elif value is not None:
                number(f"published.{name}", value, 0, 1e12)


@dataclass(frozen=True)
class Recipe:
    """One variant of one family, ready to be exported; ``structure`` and ``evolution`` are the family's own (:mod:`.forms`)."""

    name: str
    family: str
    structure: Network
    evolution: TokenEvolution
    transform: Transform = field(default_factory=Transform)
    baseline: str = ""
    published: Published = field(default_factory=Published)
    tolerances: dict[str, Tolerance] = field(default_factory=lambda: dict(DEFAULT_TOLERANCES))

    def __post_init__(self) -> None:
        _text("name", self.name)
        _text("baseline", self.baseline)
        form = form_of(self.family)
        if not isinstance(self.structure, form.structure) or not isinstance(self.evolution, form.evolution):
            raise RecipeError(f"structure or evolution is not that of family {self.family!r}.")
        self.evolution.check(self.structure)

    def parts(self, structure: type[S], evolution: type[E]) -> tuple[S, E]:
        """Return structure and evolution, typed as those of the family: ``recipe.parts(Structure, Evolution)``."""
        assert isinstance(self.structure, structure), self.family
        assert isinstance(self.evolution, evolution), self.family
        return self.structure, self.evolution

    def network(self, structure: type[S]) -> S:
        """Return the structure, typed as that of the family; families of one network may differ in evolution."""
        assert isinstance(self.structure, structure), self.family
        return self.structure

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; :meth:`from_dict` reads it back."""
        return {**dataclasses.asdict(self), "structure": self.structure.to_dict()}

    @classmethod
    def from_dict(cls, document: dict[str, Any], where: str = "recipe") -> Recipe:
        """Build a recipe from parsed TOML or JSON; unknown keys and impossible values raise RecipeError."""
        if not isinstance(document, dict):
            raise RecipeError(f"{where} must be a table, not {type(document).__name__}.")
        document = dict(document)
        tolerances, given = dict(DEFAULT_TOLERANCES), document.pop("tolerances", {})
        if not isinstance(given, dict):
            raise RecipeError(f"{where}: tolerances must be a table, not {type(given).__name__}.")
        for precision, table in given.items():
            if precision not in PRECISIONS:
                raise RecipeError(
                    f"{where}: tolerances.{precision} is unknown; valid: {', '.join(PRECISIONS)}."
                    f"{did_you_mean(precision, PRECISIONS)}"
                )
            tolerances[precision] = build_table(Tolerance, table, f"{where}: tolerances.{precision}")
        parts: dict[str, Any] = {}
        kinds: dict[str, type[Any]] = {"transform": Transform, "published": Published}
        if "family" in document:  # if not, that is what is said below
            try:
                form = form_of(document["family"])
            except RecipeError as error:
                raise RecipeError(f"{where}: {error}") from None
            kinds = {"structure": form.structure, "evolution": form.evolution, **kinds}
        for key, kind in kinds.items():
            if key in document:
                parts[key] = build_table(kind, document.pop(key), f"{where}: {key}")
        return build_table(cls, {**document, **parts, "tolerances": tolerances}, where)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 1000:
        raise RecipeError(f"{name} is {ascii(value)[:80]}; it must be a text without control characters.")


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return data_names("export")


def baselines() -> dict[str, str]:
    """Return the name of every vanilla model that a shipped recipe is measured against -> that recipe's name.

    Of several the one whose paper measured that model counts.
    """
    found: dict[str, str] = {}
    recipes = sorted(map(load_recipe, recipe_names()), key=lambda one: one.published.baseline_images_per_second is None)
    for recipe in recipes:
        found.setdefault(recipe.baseline, recipe.name)
    found.pop("", None)
    return dict(sorted(found.items()))


def baseline_names() -> list[str]:
    """Return the names of the vanilla models that have a shipped recipe."""
    return list(baselines())


def load_recipe(name_or_path: str) -> Recipe:
    """Load a shipped recipe by name, or any TOML file by path.

    Raises:
        RecipeError: No such recipe, not TOML, unknown keys or impossible values.
    """
    path = find_data_file(str(name_or_path), "export", "recipe", RecipeError)
    return read_recipe(path)


def read_recipe(path: Path) -> Recipe:
    """Parse one recipe file; its stem is the recipe's name."""
    return Recipe.from_dict({"name": path.stem, **read_toml(path)}, where=str(path))

"""Recipes: what a checkpoint does not say about its model.

An Evo-ViT checkpoint holds weights only; keep ratios, tradeoff and schedule live in the authors' code. A recipe is one
TOML file in ``export/`` with those, the structure, the eval transform, the tolerances and the published numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError
from ..storage.shipped import data_names, find_data_file
from ..storage.tables import build_table, read_toml
from ..suggest import did_you_mean
from .bounds import number, whole
from .levit import LevitEvolution, LevitStructure
from .vit import Structure

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
    "load_recipe",
    "recipe_names",
]

PRECISIONS = ("fp32", "fp16", "bf16")
# `deit`, `vit` and `levit` are the vanilla twins: every token takes part in every block.
FAMILIES = ("evo_deit", "deit", "evo_vit", "vit", "evo_levit", "levit")
LEVIT = ("evo_levit", "levit")
VIT = ("evo_vit", "vit")  # timm's; the `baseline` of an `evo_vit` is the name in timm, of a `vit` its own name is


@dataclass(frozen=True)
class Evolution:
    """Token evolution (paper section 3.2): which tokens get the full computation, by which scores.

    Attributes:
        schedule: ``stage`` selects before each block of ``stage_starts`` and restores at the end of the stage (the
            published mode); ``layer`` selects and restores around every block whose keep ratio is below 1.
        stage_starts: First block of each stage that selects, e.g. ``(4, 8)``.
        keep_ratios: One per block, in (0, 1]; 1 keeps all patch tokens.
        tradeoff: One per block, in [0, 1]: t in s = (1 - t) s + t c.
    """

    keep_ratios: tuple[float, ...]
    tradeoff: tuple[float, ...]
    schedule: Literal["stage", "layer"] = "stage"
    stage_starts: tuple[int, ...] = (4, 8)

    def __post_init__(self) -> None:
        if self.schedule not in ("stage", "layer"):
            hint = did_you_mean(self.schedule, ("stage", "layer"))
            raise RecipeError(f"evolution.schedule is {self.schedule!r}; valid: 'stage', 'layer'.{hint}")
        for ratio in self.keep_ratios:
            if not 0 < ratio <= 1:
                raise RecipeError(f"keep ratio {ratio:g} is impossible; a keep ratio is above 0 and at most 1.")
        for value in self.tradeoff:
            if not 0 <= value <= 1:
                raise RecipeError(f"tradeoff {value:g} is impossible; a tradeoff is between 0 and 1.")
        for start in self.stage_starts:
            whole("evolution.stage_starts", start, least=0)
        depth = len(self.keep_ratios)
        if len(self.tradeoff) != depth:
            raise RecipeError(
                f"evolution has {depth} keep_ratios and {len(self.tradeoff)} tradeoff values; both are one per block."
            )
        if list(self.stage_starts) != sorted(set(self.stage_starts)) or any(
            not 0 < start < depth for start in self.stage_starts
        ):
            raise RecipeError(
                f"evolution.stage_starts {list(self.stage_starts)} must be ascending block numbers from 1 to {depth - 1}."
            )
        if self.keep_ratios and self.keep_ratios[0] != 1:
            raise RecipeError(
                "evolution.keep_ratios[0] must be 1: before block 0 there is no class attention to select by."
            )
        if self.schedule == "stage":
            for first, stop in self.stages():
                if len(set(self.keep_ratios[first:stop])) != 1:
                    raise RecipeError(
                        f"keep ratios of blocks {first} to {stop - 1} differ; in the stage schedule they are one stage."
                    )
            before = self.stage_starts[0] if self.stage_starts else depth
            if any(ratio != 1 for ratio in self.keep_ratios[:before]):
                raise RecipeError(f"keep ratios below 1 before the first stage start, block {before}.")

    def stages(self) -> list[tuple[int, int]]:
        """Return (first block, stop) of every stage that selects, in the stage schedule."""
        return list(zip(self.stage_starts, (*self.stage_starts[1:], len(self.keep_ratios))))

    def with_keep(self, ratios: tuple[float, ...]) -> Evolution:
        """Return the same schedule with other keep ratios: one for all stages, or one per stage, or one per block.

        Raises:
            RecipeError: Wrong number of ratios, or a ratio outside (0, 1].
        """
        depth, stages = len(self.keep_ratios), self.stages()
        if len(ratios) == 1:
            ratios = ratios * len(stages)
        if len(ratios) == len(stages):
            keep = [1.0] * depth
            for (first, stop), ratio in zip(stages, ratios):
                keep[first:stop] = [ratio] * (stop - first)
        elif len(ratios) == depth:
            keep = list(ratios)
        else:
            raise RecipeError(
                f"{len(ratios)} keep ratios given; valid: 1 (for all stages), {len(stages)} (one per stage) or {depth} "
                f"(one per block)."
            )
        return dataclasses.replace(self, keep_ratios=tuple(keep))


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
        min_cosine: Smallest cosine similarity of an image's logits.
            Also how far from the cut a patch may be that only one of them keeps, relative to the score at the cut.
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
    """One variant of one family, ready to be exported."""

    name: str
    family: str
    structure: Structure | LevitStructure
    evolution: Evolution | LevitEvolution
    transform: Transform = field(default_factory=Transform)
    baseline: str = ""
    published: Published = field(default_factory=Published)
    tolerances: dict[str, Tolerance] = field(default_factory=lambda: dict(DEFAULT_TOLERANCES))

    def __post_init__(self) -> None:
        _text("name", self.name)
        _text("baseline", self.baseline)
        if self.family not in FAMILIES:
            raise RecipeError(f"family is {self.family!r}; valid: {', '.join(FAMILIES)}.")
        structure, evolution = self.structure, self.evolution
        if isinstance(structure, LevitStructure) and isinstance(evolution, LevitEvolution) and self.family in LEVIT:
            evolution.check(structure)
        elif not isinstance(structure, Structure) or not isinstance(evolution, Evolution) or self.family in LEVIT:
            raise RecipeError(f"structure or evolution is not that of family {self.family!r}.")
        elif len(evolution.keep_ratios) != structure.depth:
            raise RecipeError(f"evolution has {len(evolution.keep_ratios)} keep_ratios for {structure.depth} blocks.")

    @property
    def as_deit(self) -> tuple[Structure, Evolution]:
        """Structure and evolution of a recipe that is not of the LeViT family, typed as such."""
        assert isinstance(self.structure, Structure), self.family
        assert isinstance(self.evolution, Evolution), self.family
        return self.structure, self.evolution

    @property
    def as_levit(self) -> tuple[LevitStructure, LevitEvolution]:
        """Structure and evolution of an ``evo_levit`` or ``levit`` recipe, typed as such."""
        assert isinstance(self.structure, LevitStructure), self.family
        assert isinstance(self.evolution, LevitEvolution), self.family
        return self.structure, self.evolution

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; :meth:`from_dict` reads it back."""
        document = dataclasses.asdict(self)
        if isinstance(self.structure, Structure):
            document["structure"] = self.structure.to_dict()
        return document

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
        levit = document.get("family") in LEVIT
        for key, kind in (
            ("structure", LevitStructure if levit else Structure),
            ("evolution", LevitEvolution if levit else Evolution),
            ("transform", Transform),
            ("published", Published),
        ):
            if key in document:
                parts[key] = build_table(kind, document.pop(key), f"{where}: {key}")
        return build_table(cls, {**document, **parts, "tolerances": tolerances}, where)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > 1000:
        raise RecipeError(f"{name} is {ascii(value)[:80]}; it must be a text without control characters.")


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return data_names("export")


def baseline_names() -> list[str]:
    """Return the names of the vanilla models that have a shipped recipe."""
    return [name.removeprefix("evo_") for name in recipe_names()]


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

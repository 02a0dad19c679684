"""Suites: one TOML file in ``bench/suites/`` says what is measured, at which batch sizes and for how long."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, RecipeError
from ..recipes import recipe_names
from ..storage.shipped import data_names, find_data_file
from ..storage.tables import build_table, read_toml
from ..suggest import did_you_mean
from .settings import KINDS, Settings, baselines_of

__all__ = ["Suite", "SuiteGroup", "load_suite", "suite_names"]


@dataclass(frozen=True)
class SuiteGroup:
    """Models that are measured in one run, side by side, each with random weights.

    Attributes:
        recipe: Name of a shipped recipe, or path of one.
        selections: Selection patterns to compare; empty is the export's default.
        baseline: One of :data:`.settings.KINDS` or several between commas, or ``none``.
    """

    recipe: str
    selections: tuple[str, ...] = ()
    baseline: str = "twin"


@dataclass(frozen=True)
class Suite:
    """What to measure.

    Attributes:
        name: File stem.
        description: One line.
        groups: One run each, in order.
        settings: For all of them.
    """

    name: str
    description: str
    groups: tuple[SuiteGroup, ...]
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class _File:
    """The top level of a suite file."""

    description: str
    models: tuple[str, ...]
    baseline: str = "twin"
    selections: tuple[str, ...] = ()
    settings: Any = None


def suite_names() -> list[str]:
    """Return the names of the shipped suites."""
    return data_names("bench/suites")


def load_suite(name_or_path: str) -> Suite:
    """Load a shipped suite by name, or any TOML file by path.

    ``models`` are recipe names, with ``*`` for any part of them, or paths of recipe files; each becomes a separate run.

    Raises:
        RecipeError: No such suite, not TOML, unknown keys, impossible values, or a model that is no recipe.
    """
    path = find_data_file(str(name_or_path), "bench/suites", "suite", RecipeError)
    file = build_table(_File, read_toml(path), str(path))
    try:
        against = baselines_of(file.baseline)
    except InputError as error:
        raise RecipeError(f"{path}: {str(error).removeprefix('--')}") from error
    for one in against:
        if one not in (*KINDS, "none"):
            hint = did_you_mean(one, (*KINDS, "none"))
            raise RecipeError(f"{path}: baseline is {one!r}; valid: {', '.join(KINDS)}, none.{hint}")
    recipes = [recipe for pattern in file.models for recipe in _matching(pattern, str(path))]
    if not recipes:
        raise RecipeError(f"{path}: models is empty; name at least one recipe.")
    settings = build_table(Settings, file.settings or {}, f"{path}: settings")
    groups = tuple(SuiteGroup(recipe, file.selections, file.baseline) for recipe in dict.fromkeys(recipes))
    return Suite(path.stem, file.description, groups, settings)


def _matching(pattern: str, where: str) -> list[str]:
    if not isinstance(pattern, str):
        raise RecipeError(f"{where}: models holds {pattern!r}; it is a list of recipe names.")
    if pattern.endswith(".toml"):
        return [pattern]
    found = fnmatch.filter(recipe_names(), pattern)
    if not found:
        hint = did_you_mean(pattern, recipe_names())
        raise RecipeError(
            f"{where}: models: no recipe is called {pattern!r}.{hint} Shipped: {', '.join(recipe_names())}."
        )
    return found

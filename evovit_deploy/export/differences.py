"""How two models differ by what their files say: the likely reason when they are not the same function."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..engines.pytorch import TorchEngine
from ..recipes import Recipe

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["differences", "recipe_of"]


def recipe_of(engine: Engine) -> Recipe | None:
    """Return the recipe in an engine's manifest, or of the checkpoint that it runs; None for a file of another tool."""
    if engine.spec.manifest is not None:
        return Recipe.from_dict(engine.spec.manifest["recipe"], "manifest")
    return engine.recipe if isinstance(engine, TorchEngine) else None


def differences(a: Engine, b: Engine) -> tuple[str, ...]:
    """Say what two models state differently where that changes the function, such as "keep ratios 0.5, 0.5 and 0.7, 0.5".

    Family, sizes, keep ratios, schedule, tradeoff, transform and weights (SHA-256 of the checkpoint) are compared. Precision,
    selection pattern, folding and input type leave the function as it is, and are not named. A foreign file says nothing.
    """
    found = []
    of_a, of_b = recipe_of(a), recipe_of(b)
    if of_a is not None and of_b is not None:
        told_a, told_b = _facts(of_a), _facts(of_b)
        for name in dict.fromkeys((*told_a, *told_b)):
            if told_a.get(name) != told_b.get(name):
                found.append(f"{name} {_words(told_a.get(name))} and {_words(told_b.get(name))}")
    weights = [_weights(engine) for engine in (a, b)]
    if None not in weights and weights[0] != weights[1]:
        found.append(f"weights {weights[0]} and {weights[1]}")
    return tuple(found)


def _facts(recipe: Recipe) -> dict[str, Any]:
    """What decides about the function of a model, by a name for people."""
    facts: dict[str, Any] = {"family": recipe.family}
    for field in dataclasses.fields(recipe.structure):  # type: ignore[arg-type]
        facts[field.name.replace("_", " ")] = getattr(recipe.structure, field.name)
    facts |= recipe.evolution.facts()
    for field in dataclasses.fields(recipe.transform):
        facts[f"transform {field.name.replace('_', ' ')}"] = getattr(recipe.transform, field.name)
    return facts


def _weights(engine: Engine) -> str | None:
    """Which weights an engine has, in a word; None if it does not say."""
    told = (engine.spec.manifest or {}).get("weights")
    if told is None and isinstance(engine, TorchEngine):
        told = engine.weights
    if not told:
        return None
    source = str(told.get("source") or "")
    digest = told.get("sha256")
    if not digest:
        return source or None
    return f"{digest[:12]} ({source})" if source else str(digest[:12])


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_words(part) for part in value) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)

"""From a recipe and weights to the inference module, whatever the family."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import InputError
from ..recipes import Recipe
from ..suggest import did_you_mean
from .evolution import PATTERNS
from .families import family_of
from .options import ModelOptions

__all__ = ["build_model", "resolve_options"]


def build_model(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions | None = None) -> nn.Module:
    """Return the inference module of an evolved model, in eval mode, on the CPU.

    Args:
        recipe: Structure, evolution, transform.
        state: Float32 weights in the names of a checkpoint of that family: ``Checkpoint.state``.
        options: Precision, input, selection, outputs, folding.

    Raises:
        InputError: Options that the family does not have.
    """
    return family_of(recipe).build(recipe, state, resolve_options(options or ModelOptions(), recipe))


def resolve_options(options: ModelOptions, recipe: Recipe) -> ModelOptions:
    """Return the options as a model of this recipe is built with them: ``auto`` is the family's own pattern, and no outputs are
    those that the model is for.

    Raises:
        InputError: A pattern, an output or a precision that the family does not have.
    """
    family = family_of(recipe)
    options = family.settled(options, recipe)
    wanted = options.selection
    if wanted == "auto":
        return dataclasses.replace(options, selection=family.auto_pattern)
    valid = [name for name in PATTERNS if name not in family.refused_patterns]
    if wanted not in valid:
        why = family.refused_patterns.get(wanted)
        said = f"selection {wanted} {why}" if why else f"selection {wanted!r} is unknown"
        raise InputError(f"{said}; valid: auto, {', '.join(valid)}.{did_you_mean(wanted, valid)}")
    return options

"""From a checkpoint to the inference module of its family."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..recipes import VIT, Recipe
from .levit.evo_levit import build_evo_levit, resolve_pattern
from .levit.levit import EvoLevit
from .options import ModelOptions
from .vit.evo_deit import build_vit
from .vit.evo_deit import to_module_state as evo_deit_state
from .vit.timm_vit import to_module_state as timm_state
from .vit.vit import VisionTransformer

__all__ = ["build_model", "resolve_options"]


def build_model(
    recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions | None = None
) -> VisionTransformer | EvoLevit:
    """Return the inference module of an Evo-DeiT, Evo-LeViT or timm ViT, in eval mode, on the CPU.

    Args:
        recipe: Structure, evolution, transform.
        state: Float32 weights in the names of a checkpoint of that family: ``Checkpoint.state``.
        options: Precision, input, selection, outputs, folding.

    Raises:
        InputError: Options that the family does not have.
    """
    options = options or ModelOptions()
    if recipe.family == "evo_levit":
        return build_evo_levit(recipe, state, options)
    if recipe.family in VIT:
        return build_vit(recipe, timm_state(state, recipe.as_deit[0]), options)
    return build_vit(recipe, evo_deit_state(state), options)


def resolve_options(options: ModelOptions, family: str) -> ModelOptions:
    """Return the options as a model of this family is built with them: its own ``auto`` pattern.

    Raises:
        InputError: A pattern that the family cannot use.
    """
    return resolve_pattern(options) if family == "evo_levit" else options

"""From a checkpoint to the inference module of its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..recipes import VIT
from .levit.evo_levit import build_evo_levit, resolve_pattern
from .levit.levit import EvoLevit
from .options import ModelOptions
from .vit.evo_deit import build_model as build_evo_deit
from .vit.evo_deit import build_vit
from .vit.timm_vit import to_module_state as timm_state
from .vit.vit import VisionTransformer

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

__all__ = ["build_model", "resolve_options"]


def build_model(checkpoint: Checkpoint, options: ModelOptions | None = None) -> VisionTransformer | EvoLevit:
    """Return the inference module of an Evo-DeiT, Evo-LeViT or timm checkpoint, in eval mode, on the CPU.

    Args:
        checkpoint: From ``load_checkpoint`` or ``random_checkpoint``.
        options: Precision, input, selection, outputs, folding.
    """
    if checkpoint.recipe.family == "evo_levit":
        return build_evo_levit(checkpoint, options)
    if checkpoint.recipe.family in VIT:
        state = timm_state(checkpoint.state, checkpoint.recipe.as_deit[0])
        return build_vit(checkpoint.recipe, state, options or ModelOptions())
    return build_evo_deit(checkpoint, options)


def resolve_options(options: ModelOptions, family: str) -> ModelOptions:
    """Return the options as a model of this family is built with them: its own ``auto`` pattern.

    Raises:
        InputError: A pattern that the family cannot use.
    """
    return resolve_pattern(options) if family == "evo_levit" else options

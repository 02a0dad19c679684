"""timm's LeViT in our code: the vanilla twin of Evo-LeViT."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...recipes import LevitEvolution, LevitStructure, Recipe
from ..options import ModelOptions
from .evo_levit import finish_levit
from .vanilla import VanillaLevit, rename

__all__ = ["build_levit_twin"]


def build_levit_twin(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> VanillaLevit:
    """Return timm's LeViT in our code; see :attr:`.Vanilla.twin`."""
    structure, _ = recipe.parts(LevitStructure, LevitEvolution)
    model = VanillaLevit(
        structure,
        transform=recipe.transform,
        image_input=options.image_input,
        outputs=options.outputs,
        trim=options.trim,
    )
    return finish_levit(model, rename(state, structure), options)

"""The families of EViT: trained ones, and the method on any plain ViT of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...recipes import Recipe, Structure
from ...recipes.forms import Form
from ..families import Family, register
from . import evit_checkpoint, evit_recipe, facts, space
from .family import BODY, DEIT, of_timm, on_timm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import ModelOptions

__all__: list[str] = []


def _fuses(recipe: Recipe) -> bool:
    return recipe.parts(Structure, evit_recipe.Fusion)[1].fuse


def _build(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .evit import FusingTransformer

    return of_timm(recipe, state, options, kind=FusingTransformer)


# The same on a body of the authors' names and on one of timm's.
COMMON: dict[str, Any] = {
    "form": Form(Structure, evit_recipe.Fusion),
    "build": _build,
    "grids": facts.fusing_grids,
    "fuses": _fuses,
    "schedule": facts.fusing_schedule,
    "outputs": ("logits", "probabilities", "kept", "embedding", "class_token"),
    "refused_outputs": dict.fromkeys(
        ("patch_tokens", "blocks", "norm_blocks"), "is not there: a patch that was left out has no token"
    ),
    "space": space.fusing_space,
    "work": space.fusing_work,
}
register(
    Family(
        name="evit",
        label="EViT",
        trained="evit",
        vanilla=DEIT,
        recognise=evit_checkpoint.recognise,
        load=evit_checkpoint.load,
        random=evit_checkpoint.random,
        **COMMON,
        **BODY,
    )
)
register(
    on_timm(
        name="evit_vit",
        label="timm ViT, EViT",
        method="evit",
        start=lambda network: evit_recipe.start(network.depth),
        **COMMON,
    )
)

"""The families of EViT: trained ones, and the method on any plain ViT of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...recipes import Recipe, Structure
from ...recipes.forms import Form
from ..families import Family, register
from . import evit_checkpoint, evit_recipe, facts, space, timm_source
from .family import DEIT, TIMM_VIT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import ModelOptions
    from ..seams import Seam

__all__ = ["FORM"]

FORM = Form(Structure, evit_recipe.Fusion)
OUTPUTS = ("logits", "probabilities", "kept", "embedding", "class_token")
GONE = dict.fromkeys(("patch_tokens", "blocks", "norm_blocks"), "is not there: a patch that was left out has no token")


def _seams(module: nn.Module) -> Sequence[Seam]:
    from .seams import vit_seams

    return vit_seams(module)


def _fuses(recipe: Recipe) -> bool:
    return recipe.parts(Structure, evit_recipe.Fusion)[1].fuse


def _build(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .evit import build_evit

    return build_evit(recipe, state, options)


register(
    Family(
        name="evit",
        label="EViT",
        trained="evit",
        form=FORM,
        vanilla=DEIT,
        recognise=evit_checkpoint.recognise,
        load=evit_checkpoint.load,
        random=evit_checkpoint.random,
        build=_build,
        grids=facts.fusing_grids,
        fuses=_fuses,
        sizes=facts.sizes,
        schedule=facts.fusing_schedule,
        seams=_seams,
        auto_pattern="sort",
        outputs=OUTPUTS,
        refused_outputs=GONE,
        space=space.fusing_space,
        work=space.fusing_work,
    )
)
register(
    Family(
        name="evit_vit",
        label="timm ViT, EViT",
        form=FORM,
        vanilla=TIMM_VIT,
        recognise=lambda source: False,  # its name in timm says what it is
        load=timm_source.load_timm,
        random=timm_source.random_timm,
        build=_build,
        grids=facts.fusing_grids,
        fuses=_fuses,
        sizes=facts.sizes,
        schedule=facts.fusing_schedule,
        seams=_seams,
        auto_pattern="sort",
        outputs=OUTPUTS,
        refused_outputs=GONE,
        space=space.fusing_space,
        work=space.fusing_work,
        method="evit",
        start=lambda network: evit_recipe.start(network.depth),
    )
)

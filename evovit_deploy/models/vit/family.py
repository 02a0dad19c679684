"""The families of class-token ViTs: Evo-DeiT, and token evolution on any plain ViT of timm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...recipes import Evolution, Recipe, Structure
from ...recipes.forms import Form
from ..families import Family, Vanilla, register
from ..outputs import VIT_FEATURES
from . import evo_deit_checkpoint, facts, space, timm_source, tome_facts, tome_space
from .tome_recipe import Merging, start

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import ModelOptions
    from ..seams import Seam

__all__ = ["BODY", "DEIT", "TIMM_VIT", "of_timm", "on_timm"]

FORM = Form(Structure, Evolution)


def _seams(module: nn.Module) -> Sequence[Seam]:
    from .seams import vit_seams

    return vit_seams(module)


def _every_token(recipe: Recipe, family: str, name: str) -> Recipe:
    evolution = Evolution.whole(recipe.network(Structure).depth)
    return dataclasses.replace(recipe, name=name, family=family, baseline="", evolution=evolution)


def _deit(recipe: Recipe) -> Recipe:
    """The DeiT of a recipe: the same one for every method, and it classifies the class token whatever the method does."""
    structure = dataclasses.replace(recipe.network(Structure), pool="cls")
    named = dataclasses.replace(recipe, structure=structure)
    return _every_token(named, "deit", recipe.baseline or f"{recipe.name}_vanilla")


def _stock_deit(recipe: Recipe, seed: int) -> nn.Module:
    from .vanilla import timm_deit

    return timm_deit(recipe.network(Structure), seed)


def _evo_deit(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .evo_deit import build_vit, rename

    return build_vit(recipe, rename(state), options)


def _vit(recipe: Recipe) -> Recipe:
    from .timm_vit import timm_name

    return _every_token(recipe, "vit", timm_name(recipe))


def _stock_vit(recipe: Recipe, seed: int) -> nn.Module:
    from .timm_vit import timm_vit

    return timm_vit(recipe, seed)


def of_timm(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions, **kind: Any) -> nn.Module:
    """Return the module of weights in timm's names; see :attr:`.Family.build` and :attr:`.Vanilla.twin`."""
    from .evo_deit import build_vit
    from .timm_vit import rename

    return build_vit(recipe, rename(state, recipe.network(Structure)), options, **kind)


def _tome(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .tome import MergingTransformer

    return of_timm(recipe, state, options, kind=MergingTransformer)


# What any method on such a body is compared with: other families of this form share these.
OUTPUTS = ("logits", "probabilities", *VIT_FEATURES)
DEIT = Vanilla("deit", "DeiT", FORM, _deit, _stock_deit, of_timm, OUTPUTS)
TIMM_VIT = Vanilla("vit", "timm ViT", FORM, _vit, _stock_vit, of_timm, OUTPUTS)

# What every method on such a body has, whoever named its weights.
BODY: dict[str, Any] = {"sizes": facts.sizes, "seams": _seams, "auto_pattern": "sort"}


def on_timm(**row: Any) -> Family:
    """Return the row of a method that goes on any plain ViT of timm: what is not the method's own is filled in."""
    own = {
        "vanilla": TIMM_VIT,
        "recognise": lambda source: False,  # its name in timm says what it is
        "load": timm_source.load_timm,
        "random": timm_source.random_timm,
    }
    return Family(**{**own, **BODY, **row})


EVO: dict[str, Any] = {
    "form": FORM,
    "grids": facts.grids,
    "outputs": (*OUTPUTS, "kept"),
    "space": space.space,
    "work": space.work,
}
register(
    Family(
        name="evo_deit",
        label="Evo-DeiT",
        trained="evo",
        vanilla=DEIT,
        recognise=evo_deit_checkpoint.recognise,
        load=evo_deit_checkpoint.load,
        random=evo_deit_checkpoint.random,
        build=_evo_deit,
        schedule=facts.schedule,
        mark="qks.0.qk.weight",
        near_miss=evo_deit_checkpoint.near_miss,
        **EVO,
        **BODY,
    )
)
register(
    on_timm(
        name="evo_vit",
        label="timm ViT, evolved",
        build=of_timm,
        schedule=facts.timm_schedule,
        method="evo",
        start=lambda network: timm_source.scaled_evolution(network.depth),
        **EVO,
    )
)
register(
    on_timm(
        name="tome_vit",
        label="timm ViT, tokens merged (ToMe)",
        form=Form(Structure, Merging),
        build=_tome,
        grids=tome_facts.grids,
        schedule=tome_facts.schedule,
        auto_pattern="onehot",
        refused_patterns=dict.fromkeys(
            ("sort", "topk", "rank"), "is for methods that select tokens; merging is one GEMM"
        ),
        outputs=(*OUTPUTS, "sources", "sizes"),
        no_operator="the sizes of merged tokens are a bias row of its attention, which ONNX Runtime's operator would want for "
        "every query",
        space=tome_space.space,
        work=tome_space.work,
        method="tome",
        start=start,
        rates={"r": lambda evolution, given: evolution.with_r(given)},
    )
)

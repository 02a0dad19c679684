"""The family of Evo-LeViT."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...recipes import LevitEvolution, LevitStructure, Recipe
from ...recipes.forms import Form
from ..families import Family, Vanilla, register
from . import checkpoint, facts, space

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import ModelOptions
    from ..seams import Seam

__all__ = ["LEVIT"]

FORM = Form(LevitStructure, LevitEvolution)


def _seams(module: nn.Module) -> Sequence[Seam]:
    from .seams import levit_seams

    return levit_seams(module)


def _levit(recipe: Recipe) -> Recipe:
    name = recipe.baseline or f"{recipe.name}_vanilla"
    evolution = recipe.evolution.with_keep((1.0,))
    return dataclasses.replace(recipe, name=name, family="levit", baseline="", evolution=evolution)


def _stock_levit(recipe: Recipe, seed: int) -> nn.Module:
    from .vanilla import timm_levit

    return timm_levit(recipe.parts(LevitStructure, LevitEvolution)[0], seed)


def _levit_twin(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .twin import build_levit_twin

    return build_levit_twin(recipe, state, options)


def _evo_levit(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> nn.Module:
    from .evo_levit import build_evo_levit

    return build_evo_levit(recipe, state, options)


# Fused kernels of ONNX Runtime take heads of one width, and its operator an attention bias for every image.
WIDE_VALUES = "its values are wider than its queries and keys"
LEVIT = Vanilla(
    "levit",
    "LeViT",
    FORM,
    _levit,
    _stock_levit,
    _levit_twin,
    ("logits", "probabilities", "embedding"),
    no_operator=f"{WIDE_VALUES}, and its attention has a bias",
)
# The places of its last tokens are a coarser grid than that of the patches, and their channels differ from stage to stage.
NO_PATCHES = "is not there: the grid shrinks from stage to stage, and no token of the last one belongs to one patch"

register(
    Family(
        name="evo_levit",
        label="Evo-LeViT",
        trained="evo",
        form=FORM,
        vanilla=LEVIT,
        recognise=checkpoint.recognise,
        load=checkpoint.load,
        random=checkpoint.random,
        build=_evo_levit,
        grids=facts.grids,
        sizes=facts.sizes,
        schedule=facts.schedule,
        seams=_seams,
        auto_pattern="topk",
        refused_patterns={"sort": "leaves tokens out of place, and Evo-LeViT subsamples their grid"},
        outputs=("logits", "probabilities", "kept", "embedding"),
        refused_outputs={
            "class_token": "is not there: the class token of Evo-LeViT is not trained for anything but selecting",
            **dict.fromkeys(("patch_tokens", "blocks", "norm_blocks"), NO_PATCHES),
        },
        no_operator=WIDE_VALUES,
        space=space.space,
        work=space.work,
        mark="poss",
        near_miss=checkpoint.near_miss,
    )
)

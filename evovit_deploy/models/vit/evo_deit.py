"""Evo-DeiT: from the authors' parameter names to the inference module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...recipes import Recipe
from ..options import DTYPES, ModelOptions
from .folding import fold
from .vit import VisionTransformer

__all__ = ["build_vit", "rename"]


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' parameters to ours; qk and v become one qkv projection.

    Args:
        state: Evo-DeiT state dict in the authors' names, training-only heads already dropped.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        part = key.split(".")
        if part[0] == "blocks":  # blocks.3.mlp.fc1.weight -> blocks.3.fc1.weight
            renamed[key.replace(".mlp.", ".")] = tensor
        elif part[0] == "norms":
            renamed[f"blocks.{part[1]}.norm1.{part[2]}"] = tensor
        elif part[0] == "projs":
            renamed[f"blocks.{part[1]}.attn.proj.{part[2]}"] = tensor
        elif part[0] == "qks":  # rows: C of q, C of k, then C of v
            renamed[f"blocks.{part[1]}.attn.qkv.{part[3]}"] = torch.cat((tensor, state[f"vs.{part[1]}.v.{part[3]}"]))
        elif part[0] == "patch_embed":
            renamed[f"patch_embed.{part[2]}"] = tensor
        elif part[0] != "vs":
            renamed[key] = tensor
    return renamed


def build_vit(
    recipe: Recipe,
    state: Mapping[str, Tensor],
    options: ModelOptions,
    kind: Callable[..., VisionTransformer] = VisionTransformer,
) -> VisionTransformer:
    """Return the inference module of any class-token ViT, in eval mode, on the CPU.

    Args:
        recipe: Structure, evolution, transform.
        state: FP32 parameters in the module's names.
        options: Precision, input, selection (a pattern, not ``auto``), outputs, folding.
        kind: The module's class: structure, evolution and what follows here -> the module.

    Raises:
        InputError: Normed blocks of a model that norms no token.
    """
    model = kind(
        recipe.structure,
        recipe.evolution,
        pattern=options.selection,
        transform=recipe.transform,
        image_input=options.image_input,
        outputs=options.outputs,
        trim=options.trim,
    )
    model.load_state_dict(dict(state))
    model = fold(model) if options.fold else model
    return model.eval().requires_grad_(False).to(DTYPES[options.precision])

"""What class-token ViTs are compared with: timm's own module, and the same function in our code without a selection."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...recipes import Recipe, Structure
from ..options import ModelOptions
from .evo_deit import build_vit
from .timm_vit import rename
from .vit import VisionTransformer

__all__ = ["build_deit_twin", "build_timm_twin", "timm_deit"]


def build_deit_twin(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> VisionTransformer:
    """Return timm's DeiT in our code; its head reads the class token, whatever an Evo-DeiT's reads. See :attr:`.Vanilla.twin`."""
    return build_vit(recipe, rename(state, recipe.network(Structure)), options, "cls")


def build_timm_twin(recipe: Recipe, state: Mapping[str, Tensor], options: ModelOptions) -> VisionTransformer:
    """Return a ViT of timm in our code; see :attr:`.Vanilla.twin`."""
    return build_vit(recipe, rename(state, recipe.network(Structure)), options)


def timm_deit(structure: Structure, seed: int = 0) -> nn.Module:
    """Return timm's VisionTransformer with DeiT's settings and seeded random weights."""
    from timm.models.vision_transformer import VisionTransformer as TimmVit

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TimmVit(
            img_size=structure.image_size,
            patch_size=structure.patch_size,
            embed_dim=structure.embed_dim,
            depth=structure.depth,
            num_heads=structure.num_heads,
            mlp_ratio=structure.mlp_ratio,
            num_classes=structure.num_classes if structure.head else 0,
        )
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]

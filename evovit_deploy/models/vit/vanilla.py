"""What class-token ViTs are compared with: timm's own module, and the same function in our code without a selection."""

from __future__ import annotations

import torch
from torch import nn

from ...recipes import Structure

__all__ = ["timm_deit"]


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

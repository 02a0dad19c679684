"""A ViT of three blocks that timm knows by name, for commands that take such a name.

Exports cost by the block, and timm's own smallest, `test_vit`, has six. Three are enough to select or merge twice.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

NAME = "shallow_vit"
TAG = "r160_in1k"
HALF = (0.5, 0.5, 0.5)
SIZES = {"patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 3, "dynamic_img_size": True}

default_cfgs = generate_default_cfgs(
    {
        f"{NAME}.{TAG}": {
            "input_size": (3, 160, 160), "fixed_input_size": True, "num_classes": 1000, "crop_pct": 0.95,
            "interpolation": "bicubic", "mean": HALF, "std": HALF, "first_conv": "patch_embed.proj", "classifier": "head",
        }
    }
)  # fmt: skip


@register_model
def shallow_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Half as deep as `test_vit`, and the same otherwise."""
    model = build_model_with_cfg(VisionTransformer, NAME, pretrained, **{**SIZES, **options})
    assert isinstance(model, VisionTransformer)
    return model

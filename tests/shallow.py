"""Models of three blocks, which are enough to select or merge twice: exports cost by the block.

timm knows the ViT by name; its own smallest, `test_vit`, has six blocks.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import timm
import torch
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


def save_evit(path: Path, classes: int) -> None:
    """Save a checkpoint as EViT's training does, of three blocks, for images of 64 pixels; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("deit_tiny_patch16_224", img_size=64, num_classes=classes, depth=3)
    trained = Namespace(base_keep_rate=0.7, drop_loc="(1,)", fuse_token=True)
    torch.save({"model": model.state_dict(), "args": trained}, path)

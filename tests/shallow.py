"""Models of three blocks: exporting takes as long as there are blocks, and most tests of commands are about something else."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import nn

__all__ = ["save_evit", "shallow_vit"]


@register_model
def shallow_vit(pretrained: bool = False, **options: Any) -> nn.Module:
    """A ViT of three blocks for images of 112 pixels, by this name in timm where this module is imported."""
    return timm.models.vision_transformer.test_vit(pretrained, **{"img_size": 112, "depth": 3, **options})


def save_evit(path: Path, classes: int) -> None:
    """Save a checkpoint as EViT's training does, of three blocks, for images of 64 pixels; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("deit_tiny_patch16_224", img_size=64, num_classes=classes, depth=3)
    trained = Namespace(base_keep_rate=0.7, drop_loc="(1,)", fuse_token=True)
    torch.save({"model": model.state_dict(), "args": trained}, path)

"""Smaller models for the pages to run on; a page is about its commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import timm
from safetensors.torch import save_file

from evovit_deploy.models.vit.timm_names import create
from evovit_deploy.recipes.write import write_recipe
from tests import shallow
from tests.export.conftest import TINY
from tests.levit_reference import TINY as LEVIT

__all__ = ["save_all"]


def save_all(folder: Path) -> None:
    """Save the checkpoints that the pages speak of, and recipes of a small Evo-DeiT and a small Evo-LeViT."""
    for name, classes in (("ckpt", 10), ("evit", 3)):
        shallow.save_evit(folder / f"{name}.pth", classes)
    for name, model in (("deit", "deit_tiny_patch16_224"), ("vit", "vit_tiny_patch16_224")):
        save_file(timm.create_model(model).state_dict(), folder / f"{name}.safetensors")
    save_file(create("shallow_vit", 0).state_dict(), folder / "shallow_vit.safetensors")
    weights = create("shallow_vit", 0, num_classes=0).state_dict()
    # As after training: where patches differ by next to nothing, rounding picks those of a white image, and verify says so.
    weights["pos_embed"] *= 25
    save_file(weights, folder / "dinov2.safetensors")
    for name, recipe in (("small", TINY), ("levit", LEVIT)):
        write_recipe(folder / f"{name}.toml", dataclasses.replace(recipe, name=name), "for the pages")

"""State dicts and files to load, as the authors' code and others save them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.errors import CheckpointError
from evovit_deploy.recipes import Evolution, Recipe, load_recipe

SMALL = "evo_deit_small_patch16_224"


def evo_deit(
    width: int = 64,
    depth: int = 12,
    patch: int = 4,
    grid: int = 4,
    hidden: int = 96,
    classes: int = 3,
    bias: bool = True,
) -> dict[str, Tensor]:
    """A state dict as the authors' model class saves it, with their training-only heads."""
    generator = torch.Generator().manual_seed(width + depth)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(shape, generator=generator)

    def layer(name: str, *weight: int, with_bias: bool = True) -> None:
        add(f"{name}.weight", *weight)
        if with_bias:
            add(f"{name}.bias", weight[0])

    add("cls_token", 1, 1, width)
    add("pos_embed", 1, 1 + grid * grid, width)
    layer("patch_embed.proj", width, 3, patch, patch)
    for i in range(depth):
        layer(f"blocks.{i}.norm2", width)
        layer(f"blocks.{i}.mlp.fc1", hidden, width)
        layer(f"blocks.{i}.mlp.fc2", width, hidden)
    for i in range(depth):
        layer(f"qks.{i}.qk", 2 * width, width, with_bias=bias)
        layer(f"vs.{i}.v", width, width, with_bias=bias)
        layer(f"norms.{i}", width)
        layer(f"projs.{i}", width, width)
    layer("norm", width)
    layer("head", classes, width)
    layer("head_cls", classes, width)
    layer("norm_cls", width)
    return state


def inference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(("head_cls", "norm_cls"))}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def training_checkpoint(state: dict[str, Tensor], **extra: Any) -> dict[str, Any]:
    """What the authors' training script saves."""
    ema = {key: tensor + 1 for key, tensor in state.items()}
    optimizer = {"state": {0: {"step": 5, "exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {
        "model": state,
        "optimizer": optimizer,
        "lr_scheduler": {"base_values": [0.1], "t_initial": 300},
        "epoch": 299,
        "model_ema": ema,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(model="my_model", input_size=16, lr=0.1, opt_eps=None, betas=[0.9]),
        **extra,
    }


def refused(path: Path, match: str, **options: Any) -> str:
    """Loading must fail with one paragraph that names the file."""
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path, **options)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def tiny_224(**changes: int) -> dict[str, Tensor]:
    return evo_deit(**{"width": 192, "patch": 16, "grid": 14, "hidden": 768, "classes": 1000, **changes})


def custom(width: int = 64, heads: int = 1, depth: int = 12) -> Recipe:
    base = load_recipe(SMALL)
    structure = dataclasses.replace(
        base.structure, image_size=16, patch_size=4, embed_dim=width, num_heads=heads, depth=depth
    )
    evolution = Evolution((1.0,) * 2 + (0.7,) * (depth - 2), (0.5,) * depth, "stage", (2,))
    return dataclasses.replace(base, name="custom", structure=structure, evolution=evolution)

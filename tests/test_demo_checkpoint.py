"""The trained checkpoint in examples/digits: its format, and its accuracy on the images it never saw."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.folder import find_images
from evovit_deploy.images.transform import preprocess
from evovit_deploy.models.evolution import PATTERNS, Selection, onehot
from evovit_deploy.models.ops import Operators
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.vit import VisionTransformer
from tests.modules import module_of

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
DIM, DEPTH, HIDDEN, PATCH, PATCHES, CLASSES = 64, 12, 256, 8, 64, 10


def authors_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the authors' Evo-DeiT, the heads that only training uses included."""
    linear = {
        "head": (CLASSES, DIM),
        "head_cls": (CLASSES, DIM),
    }
    vectors = ["norm", "norm_cls"]
    for i in range(DEPTH):
        linear[f"qks.{i}.qk"] = (2 * DIM, DIM)
        linear[f"vs.{i}.v"] = (DIM, DIM)
        linear[f"projs.{i}"] = (DIM, DIM)
        linear[f"blocks.{i}.mlp.fc1"] = (HIDDEN, DIM)
        linear[f"blocks.{i}.mlp.fc2"] = (DIM, HIDDEN)
        vectors += [f"norms.{i}", f"blocks.{i}.norm2"]
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + PATCHES, DIM),
        "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (DIM,),
    }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in vectors:
        shapes |= {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}
    return shapes


@functools.cache
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    """The PNG files through the eval transform, [n, 3, 64, 64], and their classes, [n]."""
    files = find_images([DIGITS / "test"])
    recipe = load_checkpoint(CHECKPOINT).recipe
    images = [preprocess(load_image(file), recipe.transform, recipe.structure.image_size) for file in files]
    return torch.from_numpy(np.stack(images)), torch.tensor([int(file.parent.name) for file in files])


@torch.no_grad()
def run(model: VisionTransformer) -> list[torch.Tensor]:
    """Every output of the model on the held-out images."""
    batches = [model(batch) for batch in torch.split(held_out()[0], 90)]
    return [torch.cat(parts) for parts in zip(*batches)]


def accuracy(logits: torch.Tensor) -> float:
    return (logits.argmax(-1) == held_out()[1]).float().mean().item()


def test_file_is_small_and_in_the_authors_format() -> None:
    assert CHECKPOINT.stat().st_size <= 6e6
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)
    assert set(content) == {"model", "optimizer", "lr_scheduler", "epoch", "scaler", "args", "model_ema"}
    assert set(content["optimizer"]) == {"state", "param_groups"}
    args = content["args"]
    assert isinstance(args, argparse.Namespace)
    assert (args.input_size, args.nb_classes, content["epoch"]) == (64, CLASSES, args.epochs - 1)
    for name in ("model", "model_ema"):
        assert {key: tuple(tensor.shape) for key, tensor in content[name].items()} == authors_shapes()
        assert {tensor.dtype for tensor in content[name].values()} == {torch.float32}


def test_checkpoint_needs_no_recipe() -> None:
    checkpoint = load_checkpoint(CHECKPOINT)
    structure, evolution = checkpoint.recipe.structure, checkpoint.recipe.evolution
    assert not checkpoint.random
    assert (structure.image_size, structure.patch_size, structure.embed_dim) == (64, PATCH, DIM)
    assert (structure.depth, structure.num_heads, structure.num_classes) == (DEPTH, 1, CLASSES)
    assert evolution.schedule == "stage"
    assert evolution.keep_ratios == (1,) * 4 + (0.5,) * 8
    assert evolution.tradeoff == (1,) * 4 + (0.5,) * 8


def test_every_class_has_images_and_a_name() -> None:
    _, labels = held_out()
    assert (DIGITS / "labels.txt").read_text().splitlines() == [str(i) for i in range(CLASSES)]
    assert labels.bincount(minlength=CLASSES).min() >= 30


@pytest.mark.parametrize("ema", [False, True], ids=["model", "model_ema"])
def test_accuracy_on_held_out_images(ema: bool) -> None:
    (logits,) = run(module_of(load_checkpoint(CHECKPOINT, ema=ema)))
    assert accuracy(logits) > 0.95


def test_the_class_attention_selects_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowest(scores: torch.Tensor, keep: int, ops: Operators) -> Selection:
        return onehot(torch.cat((scores[:, :1], -scores[:, 1:]), 1), keep, ops)  # place 0 is the class token

    images, _ = held_out()
    pixels = images[:, :1] - images.amin()  # the background is black
    ink = torch.nn.functional.avg_pool2d(pixels, PATCH).flatten(1)
    ink = ink / ink.sum(1, keepdim=True)

    options = ModelOptions(selection="onehot", outputs=("logits", "kept"))
    logits, *kept = run(module_of(load_checkpoint(CHECKPOINT), options))
    monkeypatch.setitem(PATTERNS, "onehot", lowest)
    worse = run(module_of(load_checkpoint(CHECKPOINT), options))[0]
    assert accuracy(worse) < accuracy(logits)
    assert len(kept) == 2
    for positions in kept:  # half of the patches; at random they would have half of the ink
        assert ink.gather(1, positions).sum(1).mean() > 0.85

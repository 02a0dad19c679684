"""Evo-LeViT checkpoints: both copies of the blocks, structure and schedule from the tensors, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evovit_deploy.checkpoint import load_checkpoint, random_checkpoint
from evovit_deploy.errors import InputError, RecipeError
from evovit_deploy.recipes import LevitEvolution, LevitStructure, Recipe, load_recipe
from tests.levit_reference import NAME, TINY

from .forms import refused, same, saved, training_checkpoint

SIZES = LevitStructure(64, (16, 32, 48), 16, (1, 2, 3), (3, 2, 1), num_classes=5)


def copies(full_blocks: int = 2, sizes: LevitStructure = SIZES) -> dict[str, Tensor]:
    """A state dict as the authors' model class saves it: every block twice, counters, heads of training."""
    evolution = LevitEvolution((0.5,) * (3 - (full_blocks == sizes.depths[0])), full_blocks)
    state = dict(random_checkpoint(Recipe("x", "evo_levit", sizes, evolution)).state)
    state.update({f"{head}.l.weight": torch.ones(5, 48) for head in ("head_cls", "head_cls_dist")})
    for key in [key for key in state if key.endswith("running_var")]:
        state[key.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    entry, number = 0, 0
    for stage, depth in enumerate(sizes.depths):
        if stage:  # the subsampling attention and its MLP
            move(state, f"blocks.{number}.", f"stage_blocks.{entry}.")
            move(state, f"blocks.{number + 1}.", f"stage_blocks.{entry + 1}.")
            entry, number = entry + 2, number + 2
        full = full_blocks if stage == 0 else 0
        for _ in range(full):
            move(state, f"blocks.{number}.m1.", f"stage_blocks.{entry}.")
            move(state, f"blocks.{number}.m2.", f"stage_blocks.{entry + 1}.")
            entry, number = entry + 2, number + 1
        for i in range(depth - full):
            move(state, f"blocks.{number}.m1.", f"stage_blocks.{entry}.m.{2 * i}.")
            move(state, f"blocks.{number}.m2.", f"stage_blocks.{entry}.m.{2 * i + 1}.")
            number += 1
        entry += depth > full
    return state


def drop(state: dict[str, Tensor], *prefixes: str) -> None:
    for key in [key for key in state if key.startswith(prefixes)]:
        del state[key]


def move(state: dict[str, Tensor], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state[key]


@pytest.mark.parametrize("full_blocks", [1, 2, 3])
@pytest.mark.parametrize("copy", ["both", "blocks", "stage_blocks"])
def test_either_copy_or_both(path: Path, copy: str, full_blocks: int) -> None:
    state = copies(full_blocks)
    other = {"both": "none", "blocks": "stage_blocks.", "stage_blocks": "blocks."}[copy]
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(other)}
    checkpoint = load_checkpoint(saved(kept, path))
    assert checkpoint.recipe.structure == SIZES
    expected = {k: t for k, t in state.items() if not k.startswith(("stage_", "head_cls")) and "tracked" not in k}
    assert same(checkpoint.state, expected)
    if copy != "blocks":
        assert checkpoint.recipe.parts(LevitStructure, LevitEvolution)[1].full_blocks == full_blocks


def test_copies_that_differ(path: Path) -> None:
    state = copies()
    state["stage_blocks.4.m.0.m.qkv.c.weight"] = state["stage_blocks.4.m.0.m.qkv.c.weight"] + 1
    refused(saved(state, path), r"two copies of `blocks\.2\.m1\.m\.qkv\.c\.weight`.* differ")


def test_undistilled(path: Path) -> None:
    state = {key: tensor for key, tensor in copies().items() if "dist" not in key}
    assert load_checkpoint(saved(state, path)).recipe.parts(LevitStructure, LevitEvolution)[0].distilled is False


def test_training_checkpoint_with_ema_and_prefix(path: Path) -> None:
    state = {f"module.{key}": tensor.float() for key, tensor in copies().items()}
    saved(training_checkpoint(state), path)
    assert load_checkpoint(path).source == "model"
    averaged = load_checkpoint(path, ema=True)
    assert averaged.source == "model_ema"
    assert torch.equal(averaged.state["poss"], state["module.poss"] + 1)
    assert any("head_cls and head_cls_dist" in note for note in averaged.notes)


@pytest.mark.parametrize("name", ["evo_levit_128s_224", "evo_levit_192_384"])
def test_shipped_recipe_by_structure(path: Path, name: str) -> None:
    checkpoint = load_checkpoint(saved(random_checkpoint(load_recipe(name)).state, path))
    assert checkpoint.recipe == load_recipe(name)
    assert any(f"recipe {name}" in note for note in checkpoint.notes)


def test_other_sizes_are_named_after_them_and_the_key_dim_is_assumed(path: Path) -> None:
    checkpoint = load_checkpoint(saved(copies(), path))
    assert checkpoint.recipe.name == "evo_levit_c16_32_48_64"
    assert any("16 channels" in note and "--num-heads" in note for note in checkpoint.notes)
    assert load_checkpoint(path, num_heads=2).recipe.parts(LevitStructure, LevitEvolution)[0].num_heads == (2, 4, 6)
    with pytest.raises(InputError, match=r"--num-heads 3 does not fit the 16 query channels.*valid: 1, 2, 4, 8, 16"):
        load_checkpoint(path, num_heads=3)


def test_heads_that_cannot_be_told(path: Path) -> None:
    state = random_checkpoint(TINY).state
    refused(saved(state, path), "16, 24 query channels.*--num-heads")
    checkpoint = load_checkpoint(path, recipe=TINY)
    assert checkpoint.recipe == TINY


def test_positions_are_resized_on_every_grid(path: Path) -> None:
    checkpoint = load_checkpoint(saved(copies(), path), image_size=96)
    assert checkpoint.recipe.structure.image_size == 96
    shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.state.items() if key.endswith("poss")}
    assert shapes == {"poss": (1, 37, 16), "blocks.3.poss": (1, 37, 16), "blocks.7.poss": (1, 10, 32)}
    assert sum("resized" in note for note in checkpoint.notes) == 3
    with pytest.raises(InputError, match="96 or 112"):
        load_checkpoint(path, image_size=100)


def test_a_recipe_of_another_family_or_schedule(path: Path) -> None:
    saved(copies(), path)
    refused(path, "family 'evo_deit'.*is an Evo-LeViT", recipe="evo_deit_small_patch16_224")
    other = Recipe("mine", "evo_levit", SIZES, LevitEvolution((0.7,) * 3, 1))
    refused(path, "full_blocks = 2", recipe=other)
    mine = dataclasses.replace(other, evolution=LevitEvolution((0.7,) * 3, 2))
    assert load_checkpoint(path, recipe=mine).recipe == mine


def test_an_evo_levit_recipe_for_an_evo_deit(state: dict[str, Tensor], path: Path) -> None:
    refused(saved(state, path), "family 'evo_levit'.*is an Evo-DeiT", recipe="evo_levit_128s_224")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.pop("blocks.3.kv.c.weight"), r"two copies of `blocks\.3\.kv\.c\.weight`"),
        (lambda s: drop(s, "stage_blocks.", "blocks.3.kv.c"), "block 3 is missing"),
        (lambda s: drop(s, "stage_blocks.", "blocks.4."), "block 4 is missing"),
        (lambda s: s.pop("head.l.bias"), r"missing: `head\.l\.bias`"),
        (lambda s: s.pop("poss"), r"`poss` is missing"),
        (lambda s: s.update(extra=torch.ones(2)), "unexpected: `extra`"),
        (lambda s: s.update(poss=torch.ones(1, 12, 16)), "`poss` has 12 tokens.*10 or 17"),
        (lambda s: s["head.bn.running_var"].fill_(-1), "negative.*variance"),
        (lambda s: s["poss"].fill_(float("nan")), "NaN or Inf in `poss`"),
        (lambda s: s.update(cls_token=torch.ones(1, 1, 16, dtype=torch.int8)), "int8"),
        (lambda s: s.update({"stage_blocks.20.m.0.c.weight": torch.ones(2)}), r"stage_blocks.11` is missing"),
        (lambda s: s.update({"stage_blocks.x": torch.ones(2)}), "is not a block of an Evo-LeViT"),
    ],
)
def test_broken(path: Path, change, match: str) -> None:
    state = {key: tensor.clone() for key, tensor in copies().items()}
    change(state)
    refused(saved(state, path), match)


def test_a_vanilla_levit_is_named_and_what_to_do(path: Path) -> None:
    content = {"blocks.0.m.attention_biases": torch.zeros(4, 9), "patch_embed.0.c.weight": torch.zeros(16, 3, 3, 3)}
    refused(saved(content, path), "vanilla LeViT.*evovit export --baseline levit_128s_224")


def test_timms_levit_is_named(path: Path) -> None:
    from evovit_deploy.models.vanilla import stock_model, vanilla_recipe

    refused(saved(stock_model(vanilla_recipe(TINY)).state_dict(), path), "vanilla LeViT")


def test_reference(reference: Path) -> None:
    checkpoint = load_checkpoint(reference / f"{NAME}.pth")
    structure, evolution = checkpoint.recipe.parts(LevitStructure, LevitEvolution)
    assert structure == LevitStructure(128, (64, 96, 128), 16, (2, 3, 4), (2, 3, 4), num_classes=10)
    assert (evolution.keep_ratios, evolution.full_blocks) == ((0.5, 0.5), 2)
    assert checkpoint.args["model"] == "EvoLeViT_micro_128"


def test_random_weights_are_seeded() -> None:
    a, b, c = (random_checkpoint(TINY, seed).state for seed in (0, 0, 1))
    assert same(a, b)
    assert not torch.equal(a["poss"], c["poss"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"full_blocks": 0}, "at least 1: before block 0"),
        ({"full_blocks": 4}, "stage 1 has 3 blocks"),
        ({"keep_ratios": (0.5, 0.5)}, "2 keep_ratios for 3 groups"),
        ({"keep_ratios": (0.5, 0.5, 0.0)}, "keep ratio 0 is impossible"),
    ],
)
def test_impossible_evolution(change, match: str) -> None:
    document = {"name": "x", "family": "evo_levit", "structure": dataclasses.asdict(SIZES)}
    document["evolution"] = {"keep_ratios": (0.5,) * 3, "full_blocks": 2, **change}
    with pytest.raises(RecipeError, match=match):
        Recipe.from_dict(document)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_size": 100}, "not a multiple of 16"),
        ({"num_heads": (1, 2)}, "num_heads has 2 values for 3 stages"),
        ({"depths": 3}, "one number per stage"),
        ({"embed_dims": (12, 32, 48)}, "multiple of 8"),
        ({"embed_dims": (16, 24, 48)}, "multiple of structure.key_dim"),
        ({"key_dim": 0}, "at least 1"),
        ({"distilled": "yes"}, "true, false"),
    ],
)
def test_impossible_structure(change, match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        dataclasses.replace(SIZES, **change)

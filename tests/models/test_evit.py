"""EViT: the authors' outputs, plain loops over timm's own blocks, and timm itself at keep ratio 1."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy import CheckpointError, InputError, Recipe, RecipeError, load_checkpoint, load_recipe
from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.recording import given_selections, recorded_scores
from evovit_deploy.models.vanilla import vanilla_recipe
from evovit_deploy.models.vit.evit_recipe import Fusion, start
from evovit_deploy.models.vit.timm_vit import structure_of
from tests.modules import module_of
from tests.timm_models import SMALL, images_for, timm_model

FAMILIES = ("deit_small_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_224 avg")
PLACES = Fusion((1.0, 0.6, 0.7, 0.5), (1, 2, 3))
DROPPED = dataclasses.replace(PLACES, fuse=False)
FEW = Fusion((1.0, 0.6, 0.5), (1, 2))


def small(family: str, evolution: Fusion, depth: int = SMALL["depth"]) -> Checkpoint:
    model, name = timm_model(family, depth), family.split()[0]
    recipe = Recipe(f"evit_{name}", "evit_vit", structure_of(model, name), evolution, baseline=name)
    return Checkpoint(None, recipe, dict(model.state_dict()), "test", "float32", None)


def run(checkpoint: Checkpoint, images: Any, **options: Any) -> dict[str, torch.Tensor]:
    model = module_of(checkpoint, ModelOptions(**options))
    with torch.inference_mode():
        return dict(zip(model.output_names, model(images)))


@torch.inference_mode()
def by_hand(model: Any, images: torch.Tensor, evolution: Fusion) -> tuple[torch.Tensor, list[list[list[int]]]]:
    """Logits, and for every image the kept tokens at every place: loops over timm's blocks, the fused token numbered from N."""
    logits, kept_of_all = [], []
    prefix = model.num_prefix_tokens
    for image in images:
        x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]
        numbers, kept = list(range(len(x) - prefix)), []
        patches = len(numbers)
        for i, block in enumerate(model.blocks):
            heads, width = block.attn.num_heads, block.attn.head_dim
            q, k, _ = block.attn.qkv(block.norm1(x[None]))[0].reshape(len(x), 3, heads, width).unbind(1)
            rows = [(k[:, head] @ q[0, head] * width**-0.5).softmax(0)[prefix:] for head in range(heads)]
            attention = torch.stack(rows).mean(0)
            x = x + block.ls1(block.attn(block.norm1(x[None])))[0]
            keep = math.ceil(len(numbers) * evolution.keep_ratios[i])
            if keep < len(numbers):
                order = torch.argsort(attention, descending=True, stable=True)
                best, others = order[:keep].sort().values, order[keep:]
                parts = [x[:prefix], x[prefix:][best]]
                kept.append(sorted(numbers[place] for place in best.tolist()))
                numbers = kept[-1]
                if evolution.fuse:
                    parts.append((attention[others, None] * x[prefix:][others]).sum(0, keepdim=True))
                    numbers = [*kept[-1], patches + len(kept) - 1]
                x = torch.cat(parts)
            x = x + block.ls2(block.mlp(block.norm2(x[None])))[0]
        logits.append(model.forward_head(model.norm(x[None]))[0])
        kept_of_all.append(kept)
    return torch.stack(logits), kept_of_all


@functools.cache
def expected_of(family: str, evolution: Fusion) -> tuple[torch.Tensor, list[list[list[int]]]]:
    model = timm_model(family)
    return by_hand(model, images_for(model), evolution)


# Every pattern, fused and not, trimmed and folded and not, in a few runs.
@pytest.mark.parametrize("evolution", [PLACES, DROPPED], ids=["fused", "dropped"])
@pytest.mark.parametrize("family", FAMILIES)
def test_is_the_method_by_hand(family: str, evolution: Fusion) -> None:
    images = images_for(timm_model(family))
    logits, kept = expected_of(family, evolution)
    assert logits.std() > 0.1
    for number, pattern in enumerate(PATTERNS):
        how = {"selection": pattern, "fold": number % 2 == 0, "trim": number < 2}
        model = module_of(small(family, evolution), ModelOptions(outputs=("logits", "kept"), **how))
        for some in (slice(None), slice(0, 1)):
            with torch.inference_mode():
                got = dict(zip(model.output_names, model(images[some])))
            assert (got["logits"] - logits[some]).abs().max() <= 1e-5
            for place in range(3):
                assert got[f"kept_{place + 1}"].tolist() == [image[place] for image in kept[some]]


def test_a_fused_token_may_be_left_out_again() -> None:
    """So that numbers from N on are seen both kept and gone."""
    _, kept = expected_of(FAMILIES[0], PLACES)
    made = [{number for number in image[2] if number >= 36} for image in kept]
    assert any(made)
    assert not all(numbers == {36, 37} for numbers in made)


@pytest.mark.parametrize("family", FAMILIES)
def test_keep_ratio_1_is_timm(family: str) -> None:
    model = timm_model(family)
    images = images_for(model)
    with torch.inference_mode():
        expected = model(images)
    for how in ({}, {"fold": False, "trim": False}):
        (got,) = run(small(family, PLACES.with_keep((1.0,))), images, **how).values()
        assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_the_scores(precision: str) -> None:
    images = images_for(timm_model(FAMILIES[0]))
    logits, _ = expected_of(FAMILIES[0], PLACES)
    got = run(small(FAMILIES[0], PLACES), images, precision=precision, outputs=("logits", "kept"))
    assert got["logits"].dtype == torch.float32
    assert torch.equal(got["logits"].argmax(1), logits.argmax(1))


def test_the_selections_of_another_run_can_be_given() -> None:
    """The scores that a proof looks at are by number, NaN for what is gone; and what is given is kept."""
    images, checkpoint = images_for(timm_model(FAMILIES[0])), small(FAMILIES[0], PLACES)
    model = module_of(checkpoint, ModelOptions(outputs=("logits", "kept")))
    with torch.inference_mode():
        with recorded_scores(model) as scores:
            own = model(images)
        assert [part.shape for part in scores] == [(3, 36), (3, 39), (3, 39)], "before any was left out, all are there"
        present = ~np.isnan(scores[1])
        assert (present.sum(1) == 22 + 1).all(), "ceil(36 * 0.6) kept, and the fused one"
        assert all(present[i][own[1][i].numpy()].all() and present[i, 36] for i in range(3))
        for i in range(3):
            order = np.argsort(-np.nan_to_num(scores[1][i], nan=-1), kind="stable")[: own[2].shape[1]]
            assert sorted(order.tolist()) == own[2][i].tolist()
        others = [kept.flip(0).numpy() for kept in own[1:]]  # another image's
        with given_selections(model, others):
            forced = model(images)
        assert all(np.array_equal(a.numpy(), b) for a, b in zip(forced[1:], others))
        assert (forced[0] - own[0]).abs().max() > 1e-3
        again = model(images)
        assert (again[0] - own[0]).abs().max() <= 1e-5, "and the module is as it was"
        assert all(torch.equal(a, b) for a, b in zip(again[1:], own[1:]))


@pytest.mark.parametrize(
    ("name", "keep", "fuse"), [("evit_micro", 0.7, True), ("evit_micro_nofuse", 0.5, False)], ids=["fused", "dropped"]
)
@pytest.mark.parametrize("pattern", ["sort", "onehot"])
def test_the_authors_model(reference: Path, name: str, keep: float, fuse: bool, pattern: str) -> None:
    data = np.load(reference / f"{name}.npz")
    checkpoint = load_checkpoint(reference / "evit_micro.pth")
    assert checkpoint.recipe.evolution == Fusion.at(12, (3, 6, 9), 0.7), "as its training arguments say"
    recipe = dataclasses.replace(checkpoint.recipe, evolution=Fusion.at(12, (3, 6, 9), keep, fuse))
    checkpoint, images = dataclasses.replace(checkpoint, recipe=recipe), torch.from_numpy(data["images"])
    got = run(checkpoint, images, outputs=("logits", "kept"), selection=pattern, fold=pattern == "sort")
    assert np.abs(got["logits"].numpy() - data["logits"]).max() <= 1e-5
    for number, kept in enumerate(kept_of(data, fuse), 1):
        assert np.array_equal(got[f"kept_{number}"].numpy(), kept)


def kept_of(data: Any, fuse: bool) -> list[np.ndarray[Any, Any]]:
    """The authors' indices, which count the tokens that are there, as numbers."""
    numbers, found = np.tile(np.arange(49), (len(data["images"]), 1)), []
    for place in range(3):
        numbers = np.take_along_axis(numbers, data[f"idx_{place + 1}"], 1)
        found.append(np.sort(numbers, 1))
        if fuse:
            numbers = np.concatenate([numbers, np.full((len(numbers), 1), 49 + place)], 1)
    return found


def test_counts_are_those_of_the_published_model() -> None:
    recipe = load_recipe("evit_deit_small_patch16_224")
    assert recipe.evolution == start(12)
    assert start(12).left(196) == {3: 138, 6: 98, 9: 70}  # of 196, 139 and 99
    assert DROPPED.left(36) == {1: 22, 2: 16, 3: 8}
    assert Fusion.at(4, (0,), 1e-9).left(36) == {0: 1}, "one is left always"
    assert start(24).places == (6, 12, 18)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.5,), (1, 0.5, 0.5, 0.5)),
        ((0.9, 0.8, 0.7), (1, 0.9, 0.8, 0.7)),
        ((1, 1, 0.3, 1), (1, 1, 0.3, 1)),
        ((1,), (1, 1, 1, 1)),
    ],
)
def test_with_keep(given: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert PLACES.with_keep(given).keep_ratios == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: PLACES.with_keep((0.5, 0.5)),
            "valid: 1 (for all places), 3 (one per place: blocks 1, 2, 3)",
        ),
        (lambda: PLACES.with_keep((0.0,)), "keep ratio 0 is impossible"),
        (lambda: PLACES.with_keep((1.5,)), "keep ratio 1.5 is impossible"),
        (lambda: PLACES.with_keep((float("nan"),)), "keep ratio nan is impossible"),
        (lambda: Fusion((1.0, 0.5), (3,)), "ascending block numbers from 0 to 1"),
        (lambda: Fusion((1.0, 0.5), (0,)), "keep ratio 0.5 in block 1, which is not among"),
        (lambda: Fusion((1.0,), (), fuse="yes"), "evolution.fuse is 'yes'"),  # type: ignore[arg-type]
        (lambda: Fusion.at(12, (3, 12), 0.7), "there is no block 12"),
        (lambda: small(FAMILIES[0], start(12)), "12 keep_ratios for 4 blocks"),
        (lambda: PLACES.with_schedule("layer"), "'stage' only"),
    ],
)
def test_impossible_schedules(make: Any, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make()
    assert words in str(caught.value)


def deit(path: Path, **args: Any) -> Path:
    """A DeiT of four blocks in a file, with training arguments."""
    torch.save({"model": timm_model("deit_small_patch16_224").state_dict(), "args": args}, path)
    return path


HEADS = {"num_heads": SMALL["num_heads"]}


@pytest.mark.parametrize(
    ("args", "asked", "expected"),
    [
        ({"base_keep_rate": 0.6, "drop_loc": "(1, 3)", "fuse_token": True}, {}, Fusion((1, 0.6, 1, 0.6), (1, 3))),
        ({"base_keep_rate": 0.6, "drop_loc": "[2]", "fuse_token": False}, {}, Fusion((1, 1, 0.6, 1), (2,), False)),
        ({"keep_rate": (1, 1, 0.7, 1), "fuse_token": True}, {}, Fusion((1, 1, 0.7, 1), (2,))),
        ({"base_keep_rate": 0.6, "drop_loc": (3, 1), "fuse_token": 1}, {}, Fusion((1, 0.6, 1, 0.6), (1, 3))),
        ({"base_keep_rate": 0.6, "drop_loc": "(1, 3)"}, {"keep": 0.5}, Fusion((1, 0.5, 1, 0.5), (1, 3), False)),
        ({}, {"method": "evit", "keep": (0.5,)}, Fusion((1, 0.5, 0.5, 0.5), (1, 2, 3))),
        ({}, {"recipe": small(FAMILIES[0], DROPPED).recipe}, DROPPED),
    ],
    ids=["arguments", "one place", "a rate a block", "unsorted", "arguments and --keep", "--method", "recipe"],
)
def test_who_says_what_is_kept(tmp_path: Path, args: Any, asked: Any, expected: Fusion) -> None:
    if "recipe" in asked:
        asked = {"recipe": dataclasses.replace(asked["recipe"], name="mine", family="evit")}
    checkpoint = load_checkpoint(deit(tmp_path / "c.pth", **args), **HEADS, **asked)
    assert (checkpoint.recipe.family, checkpoint.recipe.evolution) == ("evit", expected)
    assert sum(note.startswith("keep ratios (") for note in checkpoint.notes) == 1
    images = images_for(timm_model("deit_small_patch16_224"))
    (got,) = run(checkpoint, images).values()
    assert (got - by_hand(timm_model("deit_small_patch16_224"), images, expected)[0]).abs().max() <= 1e-5


def test_positions_are_resized_as_the_authors_do(tmp_path: Path) -> None:
    path = deit(tmp_path / "c.pth", base_keep_rate=0.6, drop_loc="(1,)")
    checkpoint = load_checkpoint(path, **HEADS, image_size=128)
    assert checkpoint.recipe.structure.image_size == 128
    assert any("6 x 6 to 8 x 8 patches (bicubic)" in note for note in checkpoint.notes)
    places = timm_model("deit_small_patch16_224").pos_embed
    assert isinstance(places, torch.Tensor)
    grid = places[:, 1:].reshape(1, 6, 6, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (8, 8), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    assert torch.equal(checkpoint.state["pos_embed"], torch.cat((places[:, :1], expected), 1))


@pytest.mark.parametrize(
    ("args", "asked", "words"),
    [
        (
            {},
            {"method": "evit"},
            "neither its training arguments nor a recipe say how many tokens it keeps. Give --keep 0.7",
        ),
        ({}, {}, "--method evit --keep"),
        ({"base_keep_rate": 0.7, "drop_loc": "(3, 6, 9)"}, {}, "there is no block 6"),
        ({"base_keep_rate": 0.7, "drop_loc": "__import__('os')"}, {}, "drop_loc is"),
        ({"base_keep_rate": 0.0, "drop_loc": "(1,)"}, {}, "keep ratio 0 is impossible"),
        ({"base_keep_rate": 0.7, "drop_loc": (1.5, 2)}, {}, "drop_loc is '(1.5, 2)', not block numbers"),
        ({"base_keep_rate": 0.7, "drop_loc": ()}, {}, "drop_loc is '()', not block numbers"),
        ({"base_keep_rate": 0.7, "drop_loc": (True, 2)}, {}, "drop_loc is '(True, 2)', not numbers"),
        ({"base_keep_rate": [0.7, 0.5], "drop_loc": "(1, 2)"}, {}, "base_keep_rate is '[0.7, 0.5]', not one number"),
        ({"base_keep_rate": True, "drop_loc": "(1,)"}, {}, "base_keep_rate is 'True', not numbers"),
        (
            {"base_keep_rate": 0.7, "drop_loc": "(1,)", "fuse_token": "yes"},
            {},
            "fuse_token is 'yes', not True or False",
        ),
        ({"keep_rate": (1, 0.7)}, {}, "keep_rate has 2 values for 4 blocks. Give --recipe FILE."),
    ],
)
def test_bad_arguments(tmp_path: Path, args: Any, asked: Any, words: str) -> None:
    path = deit(tmp_path / "c.pth", **args)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **HEADS, **asked)
    assert words in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_what_the_head_reads(family: str) -> None:
    model, images = timm_model(family), images_for(timm_model(family))
    given = run(small(family, PLACES), images, outputs=("embedding", "class_token", "logits"))
    logits, _ = expected_of(family, PLACES)
    assert (given["logits"] - logits).abs().max() <= 1e-5
    with torch.inference_mode():
        assert (model.head(given["embedding"]) - logits).abs().max() <= 1e-5
    if model.global_pool == "token":
        assert torch.equal(given["class_token"], given["embedding"])
    with pytest.raises(InputError, match="patch_tokens is not there: a patch that was left out has no token"):
        run(small(family, PLACES), images, outputs=("patch_tokens",))


def test_the_vanilla_model_is_the_same_for_every_method() -> None:
    a, b = (vanilla_recipe(load_recipe(f"{method}_deit_small_patch16_224")) for method in ("evo", "evit"))
    assert dataclasses.replace(a, published=b.published) == b
    assert b.structure == vanilla_recipe("deit_small_patch16_224").structure

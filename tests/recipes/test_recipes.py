from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.errors import RecipeError
from evovit_deploy.models.vit.schedule import plan
from evovit_deploy.recipes import (
    Evolution,
    LevitEvolution,
    LevitStructure,
    Recipe,
    Structure,
    load_recipe,
    recipe_names,
)
from tests.published import EVO_DEIT, EVO_LEVIT

SMALL = "evo_deit_small_patch16_224"
DEPTH = 12
PUBLISHED = Evolution(keep_ratios=(1.0,) * 4 + (0.5,) * 8, tradeoff=(1.0,) * 4 + (0.5,) * 8)


def document() -> dict[str, Any]:
    """The small recipe as parsed JSON, to be broken in one place."""
    return json.loads(json.dumps(load_recipe(SMALL).to_dict()))  # type: ignore[no-any-return]


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_published_variants_ship() -> None:
    assert {*EVO_DEIT, *EVO_LEVIT} <= set(recipe_names())


@pytest.mark.parametrize("name", EVO_LEVIT)
def test_shipped_levit_recipe_is_what_its_name_says(name: str) -> None:
    recipe = load_recipe(name)
    _, _, size, pixels = name.split("_")
    structure, evolution = recipe.parts(LevitStructure, LevitEvolution)
    width = int(size.removesuffix("s"))
    assert (structure.embed_dims[0], str(structure.image_size)) == (width, pixels)
    assert structure.key_dim == (16 if width == 128 else 32)
    assert structure.depths == ((2, 3, 4) if size == "128s" else (4, 4, 4))
    assert (recipe.name, recipe.family, f"evo_{recipe.baseline}") == (name, "evo_levit", name)
    assert (evolution.full_blocks, set(evolution.keep_ratios)) == (2, {0.5})
    assert (recipe.published.top1 is None) == (pixels == "384")


@pytest.mark.parametrize("name", EVO_DEIT)
def test_shipped_recipe_is_what_its_name_says(name: str) -> None:
    recipe = load_recipe(name)
    _, _, size, patch, pixels = name.split("_")
    width, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[size]
    structure = recipe.structure
    assert (structure.embed_dim, structure.num_heads, structure.depth) == (width, heads, DEPTH)
    assert (f"patch{structure.patch_size}", str(structure.image_size)) == (patch, pixels)
    assert (recipe.name, recipe.family, f"evo_{recipe.baseline}") == (name, "evo_deit", name)
    assert recipe.evolution == PUBLISHED


@pytest.mark.parametrize("name", recipe_names())
def test_round_trip_through_json(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_path_works_like_a_name(tmp_path: Path) -> None:
    from evovit_deploy.storage.shipped import data_folder

    path = write(tmp_path, (data_folder("export") / f"{SMALL}.toml").read_text(encoding="utf-8"))
    assert load_recipe(path) == dataclasses.replace(load_recipe(SMALL), name="mine")


def test_unknown_name_lists_what_ships() -> None:
    with pytest.raises(RecipeError, match=rf"'evo_deit_huge'.*{SMALL}"):
        load_recipe("evo_deit_huge")


def test_not_toml_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml.*TOML"):
        load_recipe(write(tmp_path, "family = [unclosed"))


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (None, "keep_ratio"),
        ("structure", "heads"),
        ("evolution", "keep"),
        ("transform", "crop"),
        ("published", "speed"),
    ],
)
def test_unknown_key_is_named(table: str | None, key: str) -> None:
    broken = document()
    (broken if table is None else broken[table])[key] = 1
    with pytest.raises(RecipeError, match=f"unknown key '{key}'") as caught:
        Recipe.from_dict(broken, where="mine.toml")
    assert "mine.toml" in str(caught.value)
    assert "valid:" in str(caught.value)


def test_unknown_precision_in_tolerances() -> None:
    broken = document()
    broken["tolerances"]["int8"] = broken["tolerances"]["fp16"]
    with pytest.raises(RecipeError, match=r"tolerances\.int8.*fp32, fp16, bf16"):
        Recipe.from_dict(broken)


@pytest.mark.parametrize(("table", "key"), [(None, "family"), ("structure", "patch_size"), ("evolution", "tradeoff")])
def test_missing_key_is_named(table: str | None, key: str) -> None:
    broken = document()
    del (broken if table is None else broken[table])[key]
    with pytest.raises(RecipeError, match=f"'{key}' is missing"):
        Recipe.from_dict(broken)


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("structure", "num_heads", 5, "embed_dim 384 is not a multiple"),
        ("structure", "image_size", 225, "225 is not a multiple"),
        ("structure", "num_classes", 0, "at least 1"),
        ("structure", "embed_dim", "wide", "whole number"),
        ("structure", "depth", 6, "12 keep_ratios for 6 blocks"),
        ("evolution", "schedule", "random", "'stage', 'layer'"),
        ("evolution", "tradeoff", [0.5] * 11, "11 tradeoff values"),
        ("evolution", "tradeoff", [1.0] * 11 + [-0.5], "tradeoff -0.5"),
        ("evolution", "stage_starts", [8, 4], "ascending"),
        ("evolution", "stage_starts", [0, 8], "from 1 to 11"),
        ("evolution", "stage_starts", [5, 8], "before the first stage start"),
        ("evolution", "keep_ratios", [0.5] * 12, "no class attention to select by"),
        ("evolution", "keep_ratios", [1.0] * 4 + [0.5] * 3 + [0.4] + [0.5] * 4, "blocks 4 to 7 differ"),
        ("transform", "interpolation", "nearest", "'bicubic', 'bilinear'"),
        ("transform", "std", [0.2, 0.2, 0.0], "std above 0"),
        ("transform", "resize_ratio", 0.5, "at least 1"),
    ],
)
def test_impossible_value(table: str, key: str, value: Any, message: str) -> None:
    broken = document()
    broken[table][key] = value
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(broken)


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_impossible_keep_ratio(ratio: float) -> None:
    with pytest.raises(RecipeError, match="is impossible; a keep ratio is above 0 and at most 1"):
        Evolution(keep_ratios=(1.0,) * 4 + (ratio,) * 8, tradeoff=(0.5,) * 12)
    with pytest.raises(RecipeError, match="is impossible; a keep ratio is above 0 and at most 1"):
        PUBLISHED.with_keep((ratio,))


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_impossible_tradeoff(value: float) -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        Evolution(keep_ratios=(1.0,) * 12, tradeoff=(1.0,) * 11 + (value,))


def test_unknown_family() -> None:
    broken = document()
    broken["family"] = "swin"
    with pytest.raises(RecipeError, match=r"'swin'.*evo_deit"):
        Recipe.from_dict(broken)


def test_a_table_must_be_a_table() -> None:
    broken = document()
    broken["structure"] = 3
    with pytest.raises(RecipeError, match="structure must be a table"):
        Recipe.from_dict(broken)


def test_keep_for_all_stages() -> None:
    assert PUBLISHED.with_keep((0.7,)).keep_ratios == (1.0,) * 4 + (0.7,) * 8


def test_keep_one_a_stage() -> None:
    assert PUBLISHED.with_keep((0.7, 0.5)).keep_ratios == (1.0,) * 4 + (0.7,) * 4 + (0.5,) * 4


def test_keep_one_a_block() -> None:
    ratios = (1.0,) * 4 + (0.25,) * 4 + (1.0,) * 4
    assert PUBLISHED.with_keep(ratios).keep_ratios == ratios


def test_keep_leaves_the_rest_alone() -> None:
    changed = PUBLISHED.with_keep((0.7,))
    assert dataclasses.replace(changed, keep_ratios=PUBLISHED.keep_ratios) == PUBLISHED


@pytest.mark.parametrize("count", [0, 3, 11, 13])
def test_keep_wrong_number_says_which_are_valid(count: int) -> None:
    with pytest.raises(RecipeError, match=rf"{count} keep ratios given; valid: 1 .*2 .*or 12 "):
        PUBLISHED.with_keep((0.5,) * count)


def test_keep_that_keeps_no_patch() -> None:
    with pytest.raises(RecipeError, match=r"keeps no patch of 196.*0\.005102"):
        plan(PUBLISHED.with_keep((0.001,)), 196)


def test_structure_counts_patches() -> None:
    assert Structure(image_size=112, patch_size=16, embed_dim=128, depth=12, num_heads=2).num_patches == 49

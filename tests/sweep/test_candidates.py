from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.errors import InputError, RecipeError
from evovit_deploy.recipes import Recipe, load_recipe, read_recipe, recipe_names
from evovit_deploy.recipes.write import recipe_toml, write_recipe
from evovit_deploy.sweep import candidates

RECIPE = load_recipe("evo_deit_tiny_patch16_224")


def test_the_same_ratio_in_all_stages() -> None:
    grid = candidates(RECIPE, [0.3, 0.5, 0.5, 1])
    assert [candidate.name for candidate in grid] == ["full", "stage_0.3_0.3", "stage_0.5_0.5"]
    assert set(grid[0].recipe.evolution.keep_ratios) == {1}
    assert grid[1].recipe.evolution.keep_ratios == (1,) * 4 + (0.3,) * 8
    assert grid[2].recipe == RECIPE


def test_every_combination_in_both_schedules() -> None:
    grid = candidates(RECIPE, [0.5, 1], per_stage=True, schedules=("stage", "layer"))
    assert [candidate.name for candidate in grid[1:]] == [
        *("stage_0.5_0.5", "stage_0.5_1", "stage_1_0.5"),
        *("layer_0.5_0.5", "layer_0.5_1", "layer_1_0.5"),
    ]
    assert grid[-1].recipe.evolution.schedule == "layer"
    assert grid[-1].recipe.evolution.keep_ratios == (1,) * 8 + (0.5,) * 4


def test_what_cannot_be_swept() -> None:
    with pytest.raises(RecipeError, match=r"keep ratio 1\.5 is impossible"):
        candidates(RECIPE, [1.5])
    with pytest.raises(InputError, match="225 combinations are more than 200"):
        candidates(RECIPE, [i / 20 for i in range(1, 16)], per_stage=True)
    still = dataclasses.replace(RECIPE.evolution, stage_starts=(), keep_ratios=(1.0,) * 12)
    with pytest.raises(InputError, match="nothing to sweep"):
        candidates(dataclasses.replace(RECIPE, evolution=still), [0.5])


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_survive_their_file(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    write_recipe(tmp_path / f"{name}.toml", recipe, "two\nlines")
    assert read_recipe(tmp_path / f"{name}.toml") == recipe
    text = (tmp_path / f"{name}.toml").read_text()
    assert text.startswith("# two\n# lines\n")
    assert "[\n" not in text  # a list of a value for each block is one line, as in the recipes that come with evovit


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" '\"\\#=[],")))
def test_any_text_survives(text: str) -> None:
    from evovit_deploy.storage.tables import tomllib

    recipe = dataclasses.replace(RECIPE, baseline=text)
    found = Recipe.from_dict({"name": RECIPE.name, **tomllib.loads(recipe_toml(recipe, "x"))})
    assert found == recipe


def test_an_evit_is_swept_over_its_places() -> None:
    recipe = load_recipe("evit_deit_small_patch16_224")
    grid = candidates(recipe, [0.5, 0.7])
    assert [candidate.name for candidate in grid] == ["full", "stage_0.5_0.5_0.5", "stage_0.7_0.7_0.7"]
    assert grid[0].recipe.evolution.left_out == ""
    assert grid[1].recipe.evolution.facts() == {"places": (3, 6, 9), "keep ratios": (0.5,) * 3, "fused token": True}
    assert grid[2].recipe == recipe
    with pytest.raises(InputError, match="has no layer schedule"):
        candidates(recipe, [0.5], schedules=("layer",))

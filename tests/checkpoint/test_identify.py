from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.errors import InputError, RecipeError
from evovit_deploy.recipes import load_recipe

from .forms import SMALL, custom, evo_deit, refused, saved, tiny_224


def test_the_published_schedule_is_assumed_and_said(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path))
    assert checkpoint.recipe.name == "evo_deit_c64h1_patch4_16"
    assert checkpoint.recipe.evolution == load_recipe(SMALL).evolution
    assert any("keep ratios" in note and "published" in note for note in checkpoint.notes)


def test_shipped_recipe_by_structure(path: Path) -> None:
    checkpoint = load_checkpoint(saved(tiny_224(), path))
    assert checkpoint.recipe == load_recipe("evo_deit_tiny_patch16_224")
    assert any("recipe evo_deit_tiny_patch16_224" in note for note in checkpoint.notes)


def test_another_variant_of_the_same_sizes_does_not_take_the_place_of_the_published_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`export/` may hold more recipes than were published; names before and after in the alphabet make no difference."""
    from evovit_deploy.storage import shipped

    published, export = load_recipe("evo_deit_tiny_patch16_224"), shipped.data_folder("export")
    folder = shutil.copytree(export, tmp_path / "export")
    text = (folder / f"{published.name}.toml").read_text().replace("0.5", "0.7")
    for name in ("evo_deit_a", "evo_deit_z"):
        (folder / f"{name}.toml").write_text(text)
    monkeypatch.setattr(shipped, "data_folder", lambda name: folder if name == "export" else export.parent / name)
    assert load_checkpoint(saved(tiny_224(), path)).recipe == published
    args = argparse.Namespace(model="evo_deit_z")
    assert load_checkpoint(saved({"model": tiny_224(), "args": args}, path)).recipe.name == "evo_deit_z"


def test_shipped_recipe_by_training_arguments(path: Path) -> None:
    args = argparse.Namespace(model="evo_deit_tiny_patch16_224")
    checkpoint = load_checkpoint(saved({"model": tiny_224(grid=6, classes=5), "args": args}, path))
    recipe = checkpoint.recipe
    assert (recipe.name, recipe.structure.image_size, recipe.structure.num_classes) == (
        "evo_deit_tiny_patch16_96",
        96,
        5,
    )
    assert recipe.published.top1 is None  # published for 224 pixels and 1000 classes only
    assert recipe.baseline == ""


def test_training_arguments_that_do_not_fit_are_not_believed(state: dict[str, Tensor], path: Path) -> None:
    args = argparse.Namespace(model=SMALL)
    checkpoint = load_checkpoint(saved({"model": state, "args": args}, path))
    assert checkpoint.recipe.name == "evo_deit_c64h1_patch4_16"


def test_a_given_recipe_brings_schedule_and_heads(state: dict[str, Tensor], path: Path) -> None:
    saved({"model": state, "args": argparse.Namespace(model=SMALL)}, path)
    checkpoint = load_checkpoint(path, recipe=custom(heads=4))
    assert checkpoint.recipe.structure.num_heads == 4
    assert checkpoint.recipe.structure.num_classes == 3
    assert checkpoint.recipe.evolution == custom().evolution
    assert checkpoint.recipe.name == "custom"
    assert any("recipe custom" in note for note in checkpoint.notes)


def test_a_recipe_of_another_width_lends_its_schedule_only(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path), recipe=SMALL)
    assert checkpoint.recipe.structure.num_heads == 1
    assert checkpoint.recipe.name == "evo_deit_c64h1_patch4_16"
    assert (checkpoint.recipe.baseline, checkpoint.recipe.published.top1) == ("", None)
    assert any("384" in note and "64" in note for note in checkpoint.notes)


def test_recipe_of_another_depth(state: dict[str, Tensor], path: Path) -> None:
    refused(saved(state, path), "custom has 6 blocks.*has 12", recipe=custom(depth=6))


def test_recipe_of_another_family(state: dict[str, Tensor], path: Path) -> None:
    refused(saved(state, path), "family 'deit'", recipe=dataclasses.replace(custom(), family="deit"))


def test_recipe_that_does_not_exist(state: dict[str, Tensor], path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe called 'nothing'"):
        load_checkpoint(saved(state, path), recipe="nothing")


def test_other_depth_needs_a_recipe(path: Path) -> None:
    saved(evo_deit(depth=6), path)
    assert "--recipe" in refused(path, "has 6 blocks")
    assert load_checkpoint(path, recipe=custom(depth=6)).recipe.structure.depth == 6


def test_heads_that_cannot_be_told(path: Path) -> None:
    saved(evo_deit(width=48), path)
    assert "--recipe" in refused(path, "embed dim 48.*--num-heads")
    assert load_checkpoint(path, num_heads=3).recipe.structure.num_heads == 3
    assert load_checkpoint(path, recipe=custom(width=48, heads=2)).recipe.structure.num_heads == 2


@pytest.mark.parametrize("heads", [0, -1, 5])
def test_impossible_heads(state: dict[str, Tensor], path: Path, heads: int) -> None:
    with pytest.raises(InputError, match=f"--num-heads {heads} does not divide .*64.*valid: 1, 2, 4"):
        load_checkpoint(saved(state, path), num_heads=heads)


def test_given_heads_win(state: dict[str, Tensor], path: Path) -> None:
    assert load_checkpoint(saved(state, path), num_heads=8).recipe.structure.num_heads == 8


def test_position_embedding_is_resized(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path), image_size=32)
    resized = checkpoint.state["pos_embed"]
    assert checkpoint.recipe.structure.image_size == 32
    assert resized.shape == (1, 65, 64)
    assert torch.equal(resized[:, 0], state["pos_embed"][:, 0])
    # Doubling a grid without aligned corners: a corner stays, inner samples lie a quarter from their neighbours.
    old, new = state["pos_embed"][0, 1:].view(4, 4, 64), resized[0, 1:].view(8, 8, 64)
    torch.testing.assert_close(new[0, 0], old[0, 0])
    torch.testing.assert_close(new[0, 1], 0.75 * old[0, 0] + 0.25 * old[0, 1])
    torch.testing.assert_close(new[2, 0], 0.25 * old[0, 0] + 0.75 * old[1, 0])
    assert any("4 x 4 to 8 x 8" in note for note in checkpoint.notes)


def test_same_image_size_changes_nothing(state: dict[str, Tensor], path: Path) -> None:
    checkpoint = load_checkpoint(saved(state, path), image_size=16)
    assert torch.equal(checkpoint.state["pos_embed"], state["pos_embed"])
    assert not any("resized" in note for note in checkpoint.notes)


def test_resized_model_takes_the_recipe_of_its_size(path: Path) -> None:
    content = evo_deit(width=384, patch=16, grid=14, hidden=384, classes=10)
    args = argparse.Namespace(model=SMALL)
    checkpoint = load_checkpoint(saved({"model": content, "args": args}, path), image_size=384)
    assert checkpoint.recipe.name == "evo_deit_small_patch16_384"
    assert checkpoint.recipe.baseline == "deit_small_patch16_384"


@pytest.mark.parametrize(("size", "valid"), [(30, "28 or 32"), (3, "4"), (0, "multiple"), (-16, "multiple")])
def test_impossible_image_size(state: dict[str, Tensor], path: Path, size: int, valid: str) -> None:
    with pytest.raises(InputError, match=rf"image size {size} .*{valid}"):
        load_checkpoint(saved(state, path), image_size=size)

"""A family is one registration: a throw-away one is recognised, exported, proven, measured and listed; nothing else is edited."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from evovit_deploy import load_checkpoint, load_recipe
from evovit_deploy.cli import app
from evovit_deploy.errors import CheckpointError, InputError, ParityError, RecipeError
from evovit_deploy.models.families import families, family_of, register, unregister
from evovit_deploy.recipes import baselines, recipe_names
from tests.toy_family import TOY

SHORT = ("--quick", "--min-seconds", "0.05", "--min-calls", "6", "--warmup", "0", "--provider", "cpu", "--threads", "1")
RECIPE = """
family = "toy"
[structure]
image_size = 32
patch_size = 4
width = 8
num_classes = 5
[evolution]
keep_ratios = [0.25]
"""


@pytest.fixture
def toy() -> Iterator[None]:
    register(TOY)
    try:
        yield
    finally:
        unregister("toy")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    shapes = {"stem.weight": (8, 3, 4, 4), "stem.bias": (8,), "out.weight": (5, 8), "out.bias": (5,)}
    file = tmp_path / "toy.pth"
    torch.save({"model": {f"toy.{k}": torch.randn(v, generator=generator) for k, v in shapes.items()}}, file)
    return file


@pytest.fixture
def evovit() -> Callable[..., str]:
    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160", "NO_COLOR": "1"})
        if isinstance(result.exception, Exception):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.mark.usefixtures("toy")
def test_a_checkpoint_is_recognised_exported_proven_and_described(path: Path, evovit: Callable[..., str]) -> None:
    assert load_checkpoint(path).recipe.name == "toy_8"
    assert "Toy" in evovit("inspect", path)
    model = path.with_suffix(".onnx")
    evovit("export", path, "-o", model, "--json")
    document = json.loads(model.with_suffix(".json").read_text())
    assert (document["family"], document["outputs"]) == ("toy", ["logits"])
    assert document["parity"]["passed"] is True
    assert json.loads(evovit("inspect", model, "--json"))["manifest"]["family"] == "toy"
    assert json.loads(evovit("verify", path, model, "--json"))["passed"] is True
    with pytest.raises(ParityError, match=r"They differ in keep ratios 0\.25 and 0\.5"):
        evovit("verify", path, model, "--keep", "0.25")


@pytest.mark.usefixtures("toy")
def test_it_is_measured_beside_its_vanilla_twin(path: Path, evovit: Callable[..., str]) -> None:
    recipe = path.with_suffix(".toml")
    recipe.write_text(RECIPE)
    report = json.loads(evovit("bench", recipe, "--random-weights", *SHORT, "--json"))
    assert [subject["name"] for subject in report["subjects"]] == ["toy", "toy_plain_net"]


@pytest.mark.usefixtures("toy")
def test_it_is_listed_and_its_recipes_are_read(tmp_path: Path, evovit: Callable[..., str]) -> None:
    rows: list[dict[str, Any]] = json.loads(evovit("list", "families", "--json"))["families"]
    assert {"name": "toy", "description": "Toy", "vanilla": "toy_plain", "method": None} in rows
    (tmp_path / "toy.toml").write_text(RECIPE)
    assert load_recipe(str(tmp_path / "toy.toml")).evolution.keep_ratios == (0.25,)
    (tmp_path / "toy.toml").write_text(RECIPE.replace("width", "depth"))
    with pytest.raises(RecipeError, match="unknown key 'depth'; valid: image_size, patch_size, width"):
        load_recipe(str(tmp_path / "toy.toml"))


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--outputs", "logits,kept"), "outputs kept is not for Toy; valid: logits, probabilities"),
        (("--precision", "bf16"), "precision bf16 is not for Toy; valid: fp32, fp16"),
        (("--schedule", "layer"), "Toy has the stage schedule only"),
    ],
)
def test_what_it_cannot_is_said(path: Path, evovit: Callable[..., str], options: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evovit("export", path, "-o", path.with_suffix(".onnx"), *options)
    assert not path.with_suffix(".onnx").exists()


def test_without_its_row_nothing_knows_it(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a different model.*`qks\.0\.qk\.weight` \(Evo-DeiT\)"):
        load_checkpoint(path)
    (tmp_path / "toy.toml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"family is 'toy'; valid: .*evo_deit"):
        load_recipe(str(tmp_path / "toy.toml"))


@pytest.mark.usefixtures("toy")
def test_a_name_is_taken_once() -> None:
    for again in (TOY, dataclasses.replace(TOY, name="toy_plain"), dataclasses.replace(TOY, name="deit")):
        with pytest.raises(ValueError, match="already"):
            register(again)
    other = dataclasses.replace(TOY, name="toy_2")
    with pytest.raises(ValueError, match="a method called evo already"):
        register(dataclasses.replace(other, method="evo"))
    register(other)  # another method on the same network shares its vanilla model
    unregister("toy_2")
    assert family_of("toy_plain") is TOY


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_has_a_vanilla_model(name: str) -> None:
    recipe = load_recipe(name)
    vanilla = family_of(recipe).vanilla.recipe(recipe)
    assert vanilla.family == family_of(recipe).vanilla.name
    assert set(vanilla.evolution.keep_ratios) == {1.0}
    assert vanilla.name in baselines() or not recipe.baseline  # a recipe may leave it out
    assert family_of(recipe) in families()

"""Suites: the shipped ones load, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from evovit_deploy.bench.suites import load_suite, suite_names
from evovit_deploy.errors import RecipeError
from evovit_deploy.recipes import recipe_names
from tests.published import EVO_DEIT, EVO_LEVIT

GOOD = 'description = "x"\nmodels = ["evo_deit_tiny_patch16_224"]\n'


@pytest.mark.parametrize("name", ["quick", "paper", "latency", "throughput", "selection"])
def test_shipped_suites(name: str) -> None:
    assert name in suite_names()
    suite = load_suite(name)
    assert suite.name == name
    assert suite.groups
    assert {group.recipe for group in suite.groups} <= set(recipe_names())


def test_paper_holds_every_published_model() -> None:
    assert {group.recipe for group in load_suite("paper").groups} == {*EVO_DEIT, *EVO_LEVIT}


def test_throughput_ends_where_it_stops_growing() -> None:
    assert load_suite("throughput").settings.until_flat


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + 'baseline = "stock"\nselections = ["rank"]\n[settings]\nbatches = [3]\nmin_calls = 7\n')
    suite = load_suite(str(path))
    (group,) = suite.groups
    assert (suite.name, group.baseline, group.selections) == ("mine", "stock", ("rank",))
    assert (suite.settings.batches, suite.settings.min_calls) == ((3,), 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "batch = 1", "unknown key 'batch'"),
        (GOOD + "[settings]\nbatch = [1]", "settings: unknown key 'batch'; valid: batches"),
        (GOOD + "[settings]\nbatches = [0]", "numbers from 1"),
        (GOOD + 'baseline = "deit"', "baseline is 'deit'"),
        ('description = "x"', "'models' is missing"),
        ('description = "x"\nmodels = []', "models is empty"),
        ('description = "x"\nmodels = ["evo_vgg*"]', "no recipe is called 'evo_vgg\\*'"),
        ('description = "x"\nmodels = [3]', "models holds 3"),
        ("not toml", "not a readable TOML file"),
    ],
)
def test_mistakes(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_suite(str(path))
    with pytest.raises(RecipeError, match="no suite called 'none'"):
        load_suite("none")

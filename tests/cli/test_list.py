"""`evovit list`, the shell's completion, and the other ways to start the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evovit_deploy.catalogue import KINDS, timm_models
from evovit_deploy.cli import app
from evovit_deploy.errors import InputError
from evovit_deploy.recipes import baselines, recipe_names

ROOT = Path(__file__).resolve().parents[2]


def listed(*arguments: str) -> dict[str, list[dict[str, object]]]:
    result = CliRunner().invoke(app, ["list", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_everything_is_listed_by_name() -> None:
    found = listed()
    assert list(found) == list(KINDS) == ["recipes", "families", "profiles", "suites", "baselines", "backends"]
    assert [row["name"] for row in found["recipes"]] == recipe_names()
    assert {"h100", "l4"} <= {row["name"] for row in found["profiles"]}
    assert {"quick", "paper"} <= {row["name"] for row in found["suites"]}
    assert {row["recipe"] for row in found["baselines"]} == set(baselines().values())
    assert (
        baselines()["deit_small_patch16_224"] == "evo_deit_small_patch16_224"
    )  # of the paper that measured that model
    assert next(row for row in found["backends"] if row["name"] == "onnxruntime")["installed"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_for_people_holds_every_name(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind], catch_exceptions=False, env={"COLUMNS": "60"})
    assert result.exit_code == 0
    for row in KINDS[kind]():
        assert str(row["name"]) in result.stdout


@pytest.mark.parametrize(("pattern", "count"), [("levit_192", 2), ("*_384", 7), ("EVO_DEIT_TINY", 1)])
def test_part_of_a_name(pattern: str, count: int) -> None:
    assert len(listed("recipes", pattern)["recipes"]) == count


def test_nothing_of_that_name() -> None:
    with pytest.raises(InputError, match="nothing is called 'resnet' among recipes"):
        CliRunner().invoke(app, ["list", "recipes", "resnet"], catch_exceptions=False)


def test_models_of_timm_that_work() -> None:
    looked = []
    rows = timm_models("vit_*_patch16_gap_224", lambda done, total: looked.append(total)) + timm_models("deit_tiny_*")
    assert looked[0] > 0  # there are such models, and none has the class token that scores the patches
    assert {row["name"] for row in rows} == {"deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"}
    assert {row["embed_dim"] for row in rows} == {192}


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_python_m_is_the_same_command(option: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "evovit_deploy", option], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert run.stdout.startswith("evovit-deploy ")


def completed(line: str) -> list[str]:
    """What bash is told for a line that ends where the cursor is."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_EVOVIT_COMPLETE": "complete_bash",
    }
    program = [sys.executable, "-m", "evovit_deploy"]
    run = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    return run.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("evovit exp", ["export", "explain"]),
        ("evovit bench re", ["report"]),
        ("evovit list rec", ["recipes"]),
        ("evovit export x.pth --precision b", ["bf16"]),
        ("evovit package tr", ["triton"]),
        ("evovit export --recipe evo_deit_tiny", ["evo_deit_tiny_patch16_224"]),
        ("evovit export x.pth --outputs logits,k", ["logits,kept"]),
        ("evovit export x.pth --schedule ", ["stage", "layer"]),
        ("evovit export --baseline levit_192", ["levit_192_224", "levit_192_384"]),
        ("evovit build x.onnx --profile h", ["h100"]),
        ("evovit bench run --suite q", ["quick"]),
        ("evovit bench x.onnx --suite q", ["quick"]),
        ("evovit bench x.onnx --baseline st", ["stock", "stock-compiled"]),
        ("evovit bench x.onnx --baseline twin,st", ["twin,stock", "twin,stock-compiled"]),
        ("evovit predict x.pth --provider c", ["cpu", "cuda"]),
    ],
)
def test_the_shell_completes(line: str, expected: list[str]) -> None:
    assert sorted(completed(line)) == sorted(expected)

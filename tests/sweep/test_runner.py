"""A sweep of the shipped checkpoint over a few images, through the command."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy import load_checkpoint
from evovit_deploy.cli import app
from evovit_deploy.engines.trt.api import find_gpu
from evovit_deploy.errors import EngineError, EvoVitError, InputError, ModelFileError
from evovit_deploy.evaluate import Subject
from evovit_deploy.recipes import read_recipe
from evovit_deploy.sweep import one as running
from evovit_deploy.sweep import runner
from evovit_deploy.sweep.runner import SweepSettings, read_outcomes

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
pytestmark = pytest.mark.usefixtures("short")


def call(*arguments: object, code: int = 0, model: tuple[Path, Path] | None = None) -> Any:
    """Run the command, on the shipped checkpoint or another one and its recipe."""
    source = (CHECKPOINT,) if model is None else (model[0], "--recipe", model[1])
    command = ["sweep", *source, *arguments, "--provider", "cpu", "--threads", 1]
    result = CliRunner().invoke(app, list(map(str, command)))
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.mark.slow
def test_a_sweep_is_interrupted_goes_on_and_picks(
    some: Path, shallow: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ran = running.evaluate, []

    def evaluated(subject: Subject, *rest: Any, **options: Any) -> Any:
        ran.append(subject.path.stem.removesuffix("_fp32"))
        if len(ran) == 2:
            raise KeyboardInterrupt
        return real(subject, *rest, **options)

    monkeypatch.setattr(running, "evaluate", evaluated)
    folder = tmp_path / "out"
    command = ("--data", some, "-o", folder, "--ratios", "0.25,1")
    result = call(*command, model=shallow, code=130)
    assert "the same command resumes there" in result.stderr
    assert [one.name for one in read_outcomes(folder / "outcomes.jsonl")] == ["full"]

    document = json.loads(call(*command, "--max-drop", "100", "--json", model=shallow).stdout)
    assert ran == ["full", "stage_0.25_0.25", "stage_0.25_0.25"]
    full, quarter = document["outcomes"]
    assert (full["speedup"], full["drop"], full["agreement"], full["images"]) == (1, 0, 1, 20)
    assert quarter["keep_ratios"] == [0.25, 0.25]
    assert full["full_ms"] == full["latency_ms"]
    assert quarter["full_ms"] > 0
    middle = (full["latency_ms"] + quarter["full_ms"]) / 2
    assert quarter["comparable_ms"] == pytest.approx(middle / quarter["speedup"])
    assert full["top1"] > quarter["top1"] > 0
    assert quarter["drop"] == pytest.approx(100 * (full["top1"] - quarter["top1"]))
    assert document["picked"] in ("full", "stage_0.25_0.25")
    picked = next(one for one in document["outcomes"] if one["name"] == document["picked"])
    recipe = read_recipe(folder / "recipe.toml")
    assert [recipe.evolution.keep_ratios[first] for first, _ in recipe.evolution.stages()] == picked["keep_ratios"]
    assert load_checkpoint(shallow[0], recipe=recipe).recipe.evolution == recipe.evolution
    assert ElementTree.parse(folder / "front.svg").getroot().tag.endswith("svg")
    assert "| stage_0.25_0.25 |" in (folder / "front.md").read_text()

    # Nothing is run again for another question; other data are another sweep, with the models that are there.
    table = call(*command, "--budget", "100s", model=shallow).stdout
    assert "stage_0.25_0.25" in table
    assert "next: evovit export" in table
    assert len(ran) == 3
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        result = call(*command, "--json", model=shallow)
        assert "no front.svg: the plot of a sweep needs matplotlib, which is not installed" in result.stderr
        assert json.loads(result.stdout)["plot"] is None
        assert not (folder / "front.svg").exists()
    times = {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()}
    shutil.rmtree(some / "9")
    call(*command, model=shallow)
    assert len(ran) == 5
    assert {path: path.stat().st_mtime_ns for path in (folder / "models").iterdir()} == times
    with pytest.raises(InputError, match="no candidate drops by"):
        call(*command, "--max-drop", "-100", model=shallow)

    (some / "8" / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 images could not be evaluated; the first, .*x\.png"):
        call(*command, "--restart", model=shallow)
    assert len(ran) == 6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--ratios", "half"), "is not a list of numbers"),
        (("--budget", "fast"), "is not a time"),
        (("--budget", "0ms"), "is not a time"),
        (("--ratios", "0"), "keep ratio 0 is impossible"),
    ],
)
def test_wrong_options_before_anything_is_run(
    some: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(EvoVitError, match=reason):
        call("--data", some, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text('{"name": "full"}\n')
    with pytest.raises(ModelFileError, match="line 1: not a record"):
        read_outcomes(tmp_path / "o.jsonl")
    assert read_outcomes(tmp_path / "none.jsonl") == []


def test_another_backend_runs_the_candidates(some: Path, shallow: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    call("--data", some, "-o", folder, "--ratios", "0.25", "--backend", "pytorch", model=shallow)
    in_torch = read_outcomes(folder / "outcomes.jsonl")
    assert not list((folder / "models").iterdir())
    call("--data", some, "-o", folder, "--ratios", "0.25", "--backend", "onnxruntime", model=shallow)
    exported = read_outcomes(folder / "outcomes.jsonl")[2:]
    assert [one.name for one in in_torch] == [one.name for one in exported] == ["full", "stage_0.25_0.25"]
    for one, other in zip(in_torch, exported):  # the same models, another measurement
        assert (one.top1, one.agreement, one.images) == (other.top1, other.agreement, other.images)
        assert one.key != other.key


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_a_tensorrt_engine_needs_a_gpu_to_be_measured(some: Path, shallow: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="NVIDIA GPU, and none was found"):
        call("--data", some, "-o", tmp_path / "out", "--backend", "tensorrt-rtx", "--precision", "fp16", model=shallow)
    assert read_outcomes(tmp_path / "out" / "outcomes.jsonl") == []


def test_settings_that_change_no_outcome_are_not_in_the_key(some: Path) -> None:
    from evovit_deploy.classes.labels import ClassNames
    from evovit_deploy.evaluate import read_dataset
    from evovit_deploy.sweep import candidates

    checkpoint = load_checkpoint(CHECKPOINT)
    full = candidates(checkpoint.recipe, [0.5])[0]
    dataset = read_dataset(some, ClassNames([()] * 10))
    settings = SweepSettings()
    keys = [
        runner._key(checkpoint, full, dataset, one)
        for one in (settings, dataclasses.replace(settings, workers=2), dataclasses.replace(settings, precision="fp16"))
    ]
    assert keys[0] == keys[1] != keys[2]

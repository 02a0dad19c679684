"""`evovit bench --suite`, images and accuracy, on models small enough to measure in a moment."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from evovit_deploy.bench import session
from evovit_deploy.cli import app
from evovit_deploy.cli._bench import command_line
from evovit_deploy.errors import EngineError
from tests.engines.fake_trt import write_plan

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--quick", "--min-seconds", "0.02", "--min-calls", "6", "--warmup", "0", "--provider", "cpu", "--threads", "1")
MICRO = """
family = "evo_deit"
baseline = "deit_micro"
[structure]
image_size = 32
patch_size = 8
embed_dim = 16
depth = 4
num_heads = 2
num_classes = 5
[evolution]
stage_starts = [2]
keep_ratios = [1.0, 1.0, 0.5, 0.5]
tradeoff = [1.0, 1.0, 0.5, 0.5]
"""


def run(*arguments: str | Path) -> Any:
    words = ["bench", *(str(argument) for argument in arguments), *SHORT]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"evo_{name}.toml").write_text(MICRO)
    path = tmp_path / "mine.toml"
    models = [str(tmp_path / f"evo_{name}.toml") for name in ("a", "b")]
    path.write_text(
        f'description = "x"\nmodels = {json.dumps(models)}\nselections = ["topk", "rank"]\n[settings]\nbatches = [2]\n'
    )
    return path


def test_a_suite_is_a_run_for_each_model(suite: Path, tmp_path: Path) -> None:
    record = tmp_path / "r.jsonl"
    result = run("--suite", suite, "--backend", "pytorch", "--record", record, "--json")
    document = json.loads(result.stdout)
    assert document["suite"] == "mine"
    assert [[s["label"] for s in found["subjects"]] for found in document["runs"]] == [
        ["evo_a topk", "evo_a rank", "deit_micro twin"],
        ["evo_b topk", "evo_b rank", "deit_micro twin"],
    ]
    assert [[p["batch"] for p in found["points"]] for found in document["runs"]] == [[2] * 3] * 2
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["suite"] for line in lines] == ["mine", "mine"]
    assert str(tmp_path) not in record.read_text()


def test_ctrl_c_keeps_the_runs_that_were_measured(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = session.benchmark, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        report = real(*arguments, **options)
        return dataclasses.replace(report, interrupted=len(calls) == 1)

    monkeypatch.setattr(session, "benchmark", interrupted)
    record = tmp_path / "r.jsonl"
    result = run("--suite", suite, "--backend", "pytorch", "--record", record)
    assert result.exit_code == 130
    assert len(calls) == 1
    assert json.loads(record.read_text())["points"]


def test_a_model_that_fails_leaves_what_was_measured_before(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = session.benchmark, []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise EngineError("out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(session, "benchmark", failing)
    record = tmp_path / "r.jsonl"
    words = ["bench", "--suite", str(suite), "--backend", "pytorch", "--record", str(record), *SHORT]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "160", "NO_COLOR": "1"})
    assert isinstance(result.exception, EngineError)
    assert "evo_a rank" in result.stdout
    assert len(record.read_text().splitlines()) == 1


def test_commands_are_recorded_without_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["/usr/bin/evovit", "bench", "/data/x.onnx", "--record=/data/r.jsonl", "--batch", "1,8"]
    )
    assert command_line() == "evovit bench x.onnx --record=r.jsonl --batch 1,8"


def test_a_model_in_place_of_the_suites_own(suite: Path, tmp_path: Path) -> None:
    """The suite then says how it is measured."""
    words = ("evo_a.toml", "--random-weights", "--backend", "pytorch", "--suite", suite, "--baseline", "none", "--json")
    (found,) = json.loads(run(tmp_path / words[0], *words[1:]).stdout)["runs"]
    assert [s["label"] for s in found["subjects"]] == ["evo_a"]
    assert [p["batch"] for p in found["points"]] == [2]


def test_accuracy_beside_speed_of_a_trained_model() -> None:
    digits = ROOT / "examples" / "digits"
    words = (digits / "evo_deit_digits.pth", "--backend", "pytorch", "--batch", "1", "--images", digits / "test" / "3")
    document = json.loads(run(*words, "--json", "--preprocess").stdout)
    evo, twin = (subject["facts"] for subject in document["subjects"])
    assert evo["labelled"] == len(list((digits / "test" / "3").iterdir()))
    assert evo["top1"] > 0.9
    assert twin["top1"] is None
    assert any("accuracy not evaluated, its weights are random" in note for note in document["notes"])
    assert document["preprocessing"]["ms_per_image"] > 0
    assert "1 of the image files in 3" in document["images"]


def test_images_that_are_not_labelled(tmp_path: Path, suite: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 40), (9, 9, 9)).save(photos / "x.png")
    words = (tmp_path / "evo_a.toml", "--random-weights", "--backend", "pytorch", "--batch", "1", "--images", photos)
    text = run(*words).stdout
    assert "accuracy: not evaluated" in text
    assert "'photos' is not a class" in text


def test_callers_and_pacing(tmp_path: Path, suite: Path) -> None:
    words = (tmp_path / "evo_a.toml", "--random-weights", "--backend", "pytorch", "--batch", "1", "--baseline", "none")
    document = json.loads(run(*words, "--streams", "1,2", "--rate", "200", "--arrivals", "constant", "--json").stdout)
    assert [c["streams"] for c in document["concurrent"]] == [1, 2]
    (paced,) = document["paced"]
    assert (paced["rate"], paced["arrivals"]) == (200, "constant")


def test_an_engine_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError):
        run(write_plan(tmp_path / "x.engine"))

"""`evovit bench` on a model small enough to measure in a moment; what is asserted is never how long it took."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from evovit_deploy import bench as benches
from evovit_deploy.bench import session
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.cli.bench import bench
from evovit_deploy.engines import FakeEngine, registry
from evovit_deploy.errors import (
    EngineError,
    EvoVitError,
    InputError,
    ModelFileError,
    OutputError,
    RecipeError,
    UnstableMeasurement,
)
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import load_recipe

SHORT = ("--quick", "--min-seconds", "0.05", "--min-calls", "6", "--warmup", "0", "--provider", "cpu", "--threads", "1")
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
    """Result of the command; its errors are raised, as they are before the entry point turns them into exit codes."""
    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def document(*arguments: str | Path) -> dict[str, Any]:
    found = json.loads(run(*arguments, *SHORT, "--json").stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "evo_micro.toml"
    path.write_text(MICRO)
    return path


def exported(micro: Path, path: Path, options: ExportOptions) -> Path:
    return export_onnx(random_checkpoint(load_recipe(str(micro))), path, options).path


@pytest.fixture(scope="module")
def uint8_b2(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(ModelOptions(image_input="uint8", outputs=("logits", "probabilities", "kept")), batch=2)
    return exported(micro, tmp_path_factory.mktemp("onnx") / "evo.onnx", options)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A classifier of another tool: mean over the image, then a matrix."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    weight = numpy_helper.from_array(np.ones((3, 5), np.float32), "w")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, axes])
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_exported_model_against_its_twin(uint8_b2: Path) -> None:
    found = document(uint8_b2)
    evo, twin = found["subjects"]
    assert evo["label"] == "evo"
    assert (twin["label"], found["baseline"]) == ("deit_micro twin",) * 2
    for same in ("precision", "input", "batch", "opset", "image_size", "backend", "device"):
        assert evo[same] == twin[same], same
    assert (evo["input"], evo["batch"]) == ("uint8", 2)
    assert twin["outputs"] == ["logits", "probabilities"]
    assert twin["variant"] == "twin"
    assert [(p["batch"], p["subject"]) for p in found["points"]] == [(2, "evo"), (2, "deit_micro twin")]
    assert found["points"][0]["speedup"]["against"] == "deit_micro twin"
    assert any("kept tokens" in note for note in found["notes"])
    assert found["environment"]["threads"] == 1


def test_other_batches_of_a_static_model_are_refused(uint8_b2: Path) -> None:
    with pytest.raises(InputError, match="batches of 2 only, not 8"):
        run(uint8_b2, "--baseline", "none", "--batch", "2,8", *SHORT)


def test_recipe_with_random_weights(micro: Path) -> None:
    found = document("--recipe", micro, "--random-weights", "--baseline", "stock", "--batch", "1")
    assert [subject["variant"] for subject in found["subjects"]] == [None, "stock"]
    assert found["baseline"] == "deit_micro stock"
    assert all(subject["random_weights"] for subject in found["subjects"])


def test_the_input_of_a_recipe(micro: Path) -> None:
    asked = ("--recipe", micro, "--random-weights", "--backend", "pytorch", "--batch", "1", "--input", "uint8")
    assert [subject["input"] for subject in document(*asked)["subjects"]] == ["uint8"] * 2
    assert "the same for every model, as uint8 pixels" in run(*asked, *SHORT, "--baseline", "none").stdout


def test_several_baselines(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torch.compile", lambda module, **options: module
    )  # what it gets is in tests/bench/test_baselines.py
    found = document("--recipe", micro, "--random-weights", "--batch", "1", "--baseline", "twin,stock-compiled")
    assert [subject["backend"] for subject in found["subjects"]] == ["onnxruntime", "onnxruntime", "torch.compile"]
    assert found["baseline"] == "deit_micro twin"
    assert found["further_baselines"] == ["deit_micro stock-compiled"]
    assert [one["against"] for one in found["points"][0]["further_speedups"]] == ["deit_micro stock-compiled"]


@pytest.mark.parametrize("kind", ["auto", "trimmed", "stock"])
def test_pytorch_is_compared_with_pytorch(micro: Path, kind: str) -> None:
    found = document("--recipe", micro, "--random-weights", "--backend", "pytorch", "--batch", "1", "--baseline", kind)
    assert [subject["backend"] for subject in found["subjects"]] == ["pytorch", "pytorch"]
    assert found["subjects"][1]["name"] == "deit_micro"
    assert found["baseline"] == f"deit_micro {kind}".replace("auto", "twin")


def test_table_and_record(uint8_b2: Path, tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    for _ in range(2):
        result = run(uint8_b2, "--record", record, *SHORT)
    for text in (
        "p50 ms",
        "deit_micro twin",
        "baseline",
        "accuracy: not evaluated",
        "GPU: not measured",
        "shipped photographs",
    ):
        assert text in result.stdout
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [line["schema"] for line in lines] == [2, 2]
    assert str(tmp_path) not in record.read_text()


def test_file_of_another_tool_has_no_baseline(foreign: Path) -> None:
    found = document(foreign, "--batch", "1")
    assert found["baseline"] is None
    assert found["points"][0]["speedup"] is None
    assert any("no baseline: foreign was not exported by evovit" in note for note in found["notes"])
    with pytest.raises(InputError, match="its vanilla twin is unknown"):
        run(foreign, "--baseline", "twin", *SHORT)


def test_several_engines_and_a_baseline_file(foreign: Path, micro: Path) -> None:
    found = document(foreign, "--engine", foreign, "--baseline", foreign, "--batch", "1")
    assert [subject["label"] for subject in found["subjects"]] == ["foreign", "foreign #2", "foreign #3"]
    assert found["baseline"] == "foreign #3"
    assert [bool(p["speedup"]) for p in found["points"]] == [True, True, False]


def test_models_with_other_inputs_are_refused(foreign: Path, uint8_b2: Path) -> None:
    with pytest.raises(InputError, match="input type float32 and uint8"):
        run(foreign, "--engine", uint8_b2, "--baseline", "none", *SHORT)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), InputError, "nothing to measure"),
        (("missing.onnx",), ModelFileError, "missing.onnx: no such file"),
        (("evo_deit_tiny_patch16_224",), InputError, "is a recipe"),
        (("--random-weights",), InputError, "needs one recipe"),
        (("x.onnx", "--batch", "1,zero"), InputError, "not a list of numbers"),
        (("x.onnx", "--budget", "fast"), InputError, "not a time"),
        (("x.onnx", "--rate", "0"), InputError, "above 0"),
        (("x.onnx", "--precision", "fp16"), InputError, "for checkpoints and recipes"),
        (("x.onnx", "--input", "uint8"), InputError, "--input uint8 is for checkpoints and recipes"),
        (("x.onnx", "--recipe", "evo_deit_tiny_patch16_224"), InputError, "--recipe is for checkpoints, and x.onnx"),
        (("--suite", "slow"), RecipeError, "no suite called 'slow'"),
        (("x.onnx", "--record", "no/such/folder/r.jsonl"), OutputError, "does not exist"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], error: type[EvoVitError], message: str) -> None:
    with pytest.raises(error, match=message):
        run(*arguments)


def test_baseline_that_is_no_file_and_onnx_in_pytorch(foreign: Path) -> None:
    with pytest.raises(InputError, match=r"no such file\. Did you mean 'twin'\? Valid: auto, none, twin"):
        run(foreign, "--baseline", "twins", *SHORT)
    with pytest.raises(InputError, match="--backend pytorch runs checkpoints"):
        run(foreign, "--backend", "pytorch", *SHORT)


def fixed_report(**changes: Any) -> benches.BenchReport:
    """A report of a fake engine on a clock of its own, with its points changed."""
    now = [0.0]
    fake = FakeEngine(latency=0.01, sleep=lambda s: now.__setitem__(0, now[0] + s))
    report = benches.benchmark({"fake[b]": fake}, benches.Settings(batches=(1,), min_seconds=1), clock=lambda: now[0])
    return dataclasses.replace(report, **changes)


def test_strict_fails_after_printing(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steady = fixed_report()
    unsteady = dataclasses.replace(steady, points=(dataclasses.replace(steady.points[0], stable=False),))
    app = typer.Typer()
    app.command()(bench)
    for report, expected in ((steady, None), (unsteady, UnstableMeasurement)):
        monkeypatch.setattr(session, "benchmark", lambda *args, report=report, **options: report)
        result = CliRunner().invoke(app, [str(foreign), "--strict", *SHORT])
        assert "fake[b]" in result.stdout
        assert type(result.exception) is (expected or type(None))
        assert run(foreign, *SHORT).exit_code == 0  # without --strict


def test_an_interrupted_run_keeps_what_was_measured(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = fixed_report(interrupted=True)
    monkeypatch.setattr(session, "benchmark", lambda *args, **options: report)
    record = tmp_path / "runs.jsonl"
    result = run(foreign, "--record", record, *SHORT)
    assert result.exit_code == 130
    assert "interrupted: only what was measured until then is shown" in result.stdout
    assert f"what was measured is in {record}" in result.stderr
    assert json.loads(record.read_text())["interrupted"] is True


def test_interrupted_before_the_first_point(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = fixed_report(interrupted=True, points=())
    monkeypatch.setattr(session, "benchmark", lambda *args, **options: report)
    assert run(foreign, "--record", tmp_path / "runs.jsonl", *SHORT).exit_code == 130
    assert not (tmp_path / "runs.jsonl").exists()


def test_every_backend_that_works_here_is_measured_in_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "micro.toml"
    recipe.write_text(MICRO)
    rows = [row for row in registry.backends() if row.name in ("onnxruntime", "pytorch", "tensorrt", "inductor")]
    broken = [dataclasses.replace(row, make=_fails) if row.name == "inductor" else row for row in rows]
    for row in (r for r in broken if r.name == "inductor"):
        monkeypatch.setitem(registry._rows, "inductor", row)
    monkeypatch.setattr(registry, "backends", lambda: broken)
    found = {name: {"state": "ok"} for name in ("torch", "onnxruntime")} | {"tensorrt": {"state": "missing"}}
    found["onnxruntime"]["providers"] = ["CPUExecutionProvider"]  # type: ignore[assignment]
    monkeypatch.setattr("evovit_deploy.machine.probing.probe_imports", lambda: found)
    record = tmp_path / "runs.jsonl"
    result = run(recipe, "--random-weights", "--backend", "all", *SHORT, "--batch", "1", "--record", record)
    reports = benches.read_records(record)
    assert [report.subjects[0].backend for report in reports] == ["onnxruntime", "pytorch"]
    assert all(report.subjects[1].backend == report.subjects[0].backend for report in reports)  # its twin
    assert "Best speedups" in result.stdout
    assert "tensorrt was not measured: tensorrt is not installed" in result.stderr
    assert "inductor was not measured: no compiler" in result.stderr
    with pytest.raises(InputError, match="for one checkpoint or recipe"):
        run(tmp_path / "m.onnx", "--backend", "all")
    monkeypatch.setattr("evovit_deploy.machine.probing.probe_imports", dict)
    with pytest.raises(EngineError, match="no backend could be measured here"):
        run(recipe, "--random-weights", "--backend", "all", *SHORT)


def _fails(*_: Any) -> None:
    raise EngineError("no compiler")

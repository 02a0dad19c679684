"""`evovit inspect` on TensorRT plans; the files are made by hand, as nothing of TensorRT is needed to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evovit_deploy.cli.inspect import inspect
from evovit_deploy.errors import EngineError, EvoVitError, ModelFileError
from evovit_deploy.recipes import load_recipe
from evovit_deploy.storage.files import sha256
from tests.engines.test_engine_manifest import make_document, make_plan

SMALL = "evo_deit_small_patch16_224"
REPORT = {
    "kernels": 115,
    "attention": {"fused": 11, "total": 12, "unfused": ["blocks.3.softmax"]},
    "precisions": {"fp16": 100, "fp32": 15},
    "types": {"gemm": 60, "kgen": 55},
    "selection": {"kernels": ["a", "b", "c"], "only": 2},
    "weights_bytes": 44_000_000,
    "activation_bytes": None,
    "layers": [],
}


def run(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(inspect)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    return result


def make_engine(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    path = make_plan(folder)
    model = {
        "name": SMALL,
        "family": "evo_deit",
        "precision": "fp16",
        "batch": None,
        "input": "uint8",
        "outputs": ["logits", "kept_1"],
        "selection": "sort",
        "opset": 20,
        "folded": True,
        "recipe": json.loads(json.dumps(load_recipe(SMALL).to_dict())),
        "weights": {"source": "model", "random": False, "sha256": None},
    }
    images = {"name": "images", "dtype": "uint8", "shape": [None, 224, 224, 3]}
    io = {"input": images, "outputs": {"logits": [None, 1000], "kept_1": [None, 98]}}
    changes = {"name": SMALL, "model": model, "io": io, "report": REPORT, "status": "built, not run here", **changes}
    return path, make_document(path, **changes)


def test_json_is_one_document_with_the_manifest(tmp_path: Path) -> None:
    path, manifest = make_engine(tmp_path)
    document = json.loads(run(path, "--json").stdout)
    assert document["kind"] == "engine"
    assert document["manifest"] == manifest
    assert (document["flavour"], document["version"]) == ("tensorrt-rtx", "1.7.1.116")
    assert (document["bytes"], document["sha256"], document["notes"]) == (100, sha256(path), [])
    assert [group["patches"] for group in document["groups"]] == [196, 98, 98]


def test_for_people(tmp_path: Path) -> None:
    path, _ = make_engine(tmp_path)
    text = run(path).stdout
    for fact in (
        SMALL, "tensorrt-rtx 1.7.1.116", "fp16", "1/8/32", "8.0 and newer", "a machine without a GPU", "model.onnx",
        "built, not run here", "images: uint8 [batch, 224, 224, 3]", "logits: [batch, 1000]", "kept_1: [batch, 98]",
        "115", "11 of 12 (not in blocks.3.softmax)", "fp16 100, fp32 15", "in 3 kernels, 2 of which do nothing else",
        "44.0 MB", "not known", "class token and 98 selected tokens",
    ):  # fmt: skip
        assert fact in text, fact


def test_the_gpu_it_is_bound_to_and_a_static_batch(tmp_path: Path) -> None:
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory_bytes": 1}
    batch = {"min": 8, "opt": 8, "max": 8}
    text = run(make_engine(tmp_path, gpu=gpu, compute_capabilities=["8.9"], batch=batch)[0]).stdout
    assert "NVIDIA L4" in text
    assert "8.9" in text
    assert "1/8/32" not in text


def test_an_engine_of_a_file_of_another_tool(tmp_path: Path) -> None:
    text = run(make_engine(tmp_path, model=None, name="other")[0]).stdout
    assert "other" in text
    assert "Token evolution" not in text


@pytest.mark.parametrize("suffix", [".engine", ".plan", ".trt", ".ENGINE"])
def test_without_a_manifest_there_is_what_the_plan_tells(tmp_path: Path, suffix: str) -> None:
    path = make_plan(tmp_path).rename(tmp_path / f"bare{suffix}")
    text = run(path).stdout
    assert "tensorrt-rtx 1.7.1.116" in text
    assert sha256(path) in text
    assert "no manifest beside it" in text
    for absent in ("batch", "built on", "compute capability", "Plan"):
        assert absent not in text
    assert json.loads(run(path, "--json").stdout)["manifest"] is None


def test_what_cannot_be_believed(tmp_path: Path) -> None:
    path, manifest = make_engine(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(EngineError, match=r"SHA-256 differs.*evovit build model\.onnx"):
        run(path)
    path.write_bytes(data)
    beside = tmp_path / "model.engine.json"
    beside.write_text(json.dumps({**manifest, "schema": 2}))
    with pytest.raises(EngineError, match=r"newer evovit-deploy.*Upgrade"):
        run(path)
    beside.write_text("{")
    with pytest.raises(ModelFileError, match=r"model\.engine\.json is not a readable manifest"):
        run(path)


def test_what_is_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        run(tmp_path / "none.engine")
    (tmp_path / "folder.engine").mkdir()
    with pytest.raises(ModelFileError, match="Is a directory"):
        run(tmp_path / "folder.engine")
    (tmp_path / "text.engine").write_text("this is no plan, whatever it is called")
    with pytest.raises(ModelFileError, match="not a TensorRT engine"):
        run(tmp_path / "text.engine")
    (tmp_path / "alone.engine.json").write_text(json.dumps(make_engine(tmp_path)[1]))
    with pytest.raises(ModelFileError, match=r"alone\.engine: no such file.*evovit build"):
        run(tmp_path / "alone.engine")

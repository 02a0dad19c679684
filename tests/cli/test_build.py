from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evovit_deploy.cli.build import build
from evovit_deploy.errors import EvoVitError, InputError, PlanError, RecipeError
from tests.trt_models import DEPTH, tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def run(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(build)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    return result


def test_a_table_on_stdout_and_notes_on_stderr(tmp_path: Path) -> None:
    result = run(tiny_onnx(), "-o", tmp_path / "m.engine", "--target", "tensorrt-rtx", "--no-verify")
    assert result.exit_code == 0
    assert "evo_deit_test (random weights)" in result.stdout
    assert f"{DEPTH} of {DEPTH}" in result.stdout
    assert "batch 1/8/64" in result.stdout
    assert "built, not run here" in result.stderr
    assert "built, not run here" not in result.stdout
    assert (tmp_path / "m.engine.json").is_file()


def test_one_json_document(tmp_path: Path) -> None:
    target = tmp_path / "m.engine"
    result = run(
        tiny_onnx(), "-o", target, "--profile", "rtx_ada", "--max-batch", "4", "--require-fused-attention", "--json"
    )
    document = json.loads(result.stdout)
    assert document["path"] == str(target)
    assert document["batch"] == {"min": 1, "opt": 4, "max": 4}
    assert document["compute_capabilities"] == ["8.9"]
    assert document["report"]["attention"]["fused"] == DEPTH
    assert document["options"]["require_fused_attention"] is True
    assert {**document} == {
        "path": str(target),
        **json.loads((tmp_path / "m.engine.json").read_text()),
        "notes": document["notes"],
    }


def test_brackets_in_a_name_are_text(tmp_path: Path) -> None:
    result = run(tiny_onnx(), "-o", tmp_path / "m[red].engine", "--target", "tensorrt-rtx", "--no-verify")
    assert "m[red].engine" in result.stdout


def test_gates_and_mistakes(tmp_path: Path) -> None:
    target = tmp_path / "m.engine"
    with pytest.raises(PlanError, match="--max-kernels 5"):
        run(tiny_onnx(), "-o", target, "--target", "tensorrt-rtx", "--max-kernels", "5")
    with pytest.raises(InputError, match="static batch, or"):
        run(tiny_onnx(), "-o", target, "--batch", "2", "--max-batch", "4")
    with pytest.raises(InputError, match=r"look like 8\.6"):
        run(tiny_onnx(), "-o", target, "--compute-capability", "8.6,ada")
    with pytest.raises(RecipeError, match="no profile called 'h9000'"):
        run(tiny_onnx(), "-o", target, "--profile", "h9000")
    assert run(tiny_onnx(), "--target", "cuda").exit_code == 2
    assert list(tmp_path.iterdir()) == []

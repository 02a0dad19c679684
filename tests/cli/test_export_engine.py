"""`evovit export --format engine`: export and build as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evovit_deploy.building import build as build_module
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.errors import EngineError, InputError, ModelFileError, OutputError, PlanError
from evovit_deploy.recipes.write import write_recipe
from evovit_deploy.storage.files import sha256
from tests.export.conftest import PAIR
from tests.exporting import names, run

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

ENGINE = ("--format", "engine", "--target", "tensorrt-rtx")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("source")
    write_recipe(folder / "micro.toml", PAIR, "")
    torch.save({"model": random_checkpoint(PAIR).state}, folder / "micro.pth")
    return str(folder / "micro.pth"), "--recipe", str(folder / "micro.toml")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_both_files_and_what_describes_them(source: tuple[str, ...], out: Path) -> None:
    result = run(*source, *ENGINE, "--max-batch", "4", "--require-fused-attention", "--json")
    document = json.loads(result.stdout)
    stem = Path(document["path"]).stem
    assert stem.endswith("_fp16")  # an engine is FP16 unless asked otherwise
    assert names(out) == {f"{stem}{suffix}" for suffix in (".engine", ".engine.json", ".onnx", ".json")}
    assert document["batch"] == {"min": 1, "opt": 4, "max": 4}
    assert document["report"]["attention"] == {"fused": 2, "total": 2, "unfused": []}
    assert document["export"]["path"] == f"{stem}.onnx"
    assert document["export"]["parity"]["passed"] is True
    assert document["onnx"] == {"file": f"{stem}.onnx", "sha256": sha256(out / f"{stem}.onnx")}
    assert document["plan"]["sha256"] == sha256(out / f"{stem}.engine")
    written = json.loads((out / f"{stem}.engine.json").read_text())
    assert {k: v for k, v in document.items() if k not in ("path", "notes", "export")} == written


def test_the_operator_attention_is_built_with_a_note_on_its_cost(source: tuple[str, ...], out: Path) -> None:
    result = run(
        *source, *ENGINE, "-o", "m.engine", "--attention", "operator", "--no-verify", "--require-fused-attention"
    )
    assert "note: attention operator: TensorRT needs more kernels" in " ".join(result.stderr.split())
    assert "2 of 2" in result.stdout


def test_tables_of_both(source: tuple[str, ...], out: Path) -> None:
    result = run(*source, *ENGINE, "-o", "m.engine", "--batch", "2", "--precision", "fp32", "--no-verify")
    assert names(out) == {"m.engine", "m.engine.json", "m.onnx", "m.json"}
    assert "not proven" in result.stdout
    assert "m.onnx" in result.stdout
    assert "0 of 2" in result.stdout
    assert "batch 2  tensorrt-rtx" in result.stdout
    assert "built, not run here" in result.stderr
    assert ".partial" not in result.stdout + result.stderr


def test_a_vanilla_baseline_too(out: Path) -> None:
    result = run(
        "--baseline", "deit_tiny_patch16_224", *ENGINE, "-o", "twin.engine", "--batch", "1", "--json", "--no-verify"
    )
    document = json.loads(result.stdout)
    assert document["model"]["family"] == "deit"
    assert document["report"]["attention"] == {"fused": 12, "total": 12, "unfused": []}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--max-kernels", "3"), PlanError, "more than --max-kernels 3"),
        (("--precision", "fp32", "--require-fused-attention"), PlanError, "0 of 2 places"),
    ],
)
def test_a_failed_build_leaves_what_was_there(
    source: tuple[str, ...], out: Path, options: tuple[str, ...], error: type[Exception], message: str
) -> None:
    before = {name: f"old {name}" for name in ("m.engine", "m.engine.json", "m.onnx", "m.json")}
    for name, text in before.items():
        (out / name).write_text(text)
    with pytest.raises(error, match=message):
        run(*source, *ENGINE, "-o", "m.engine", "--no-verify", "--force", *options)
    assert {path.name: path.read_text() for path in out.iterdir()} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_cancelled_build_or_a_full_disk_leaves_nothing(
    source: tuple[str, ...], out: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(build_module, "build_plan", fail)
    if error is KeyboardInterrupt:
        assert run(*source, *ENGINE, "-o", "m.engine", "--no-verify").exit_code == 130
    else:
        with pytest.raises(OutputError, match="No space left"):
            run(*source, *ENGINE, "-o", "m.engine", "--no-verify")
    assert names(out) == set()


def test_errors_of_the_build_name_the_place_of_the_file(
    source: tuple[str, ...], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(api: Any, gpu: Any, facts: Any, *other: Any) -> None:
        raise ModelFileError(f"TensorRT cannot read {facts.path}: node head (MatMul)")

    monkeypatch.setattr(build_module, "build_plan", refuse)
    with pytest.raises(ModelFileError, match=r"^TensorRT cannot read m\.onnx: node head"):
        run(*source, *ENGINE, "-o", "m.engine", "--no-verify")
    assert names(out) == set()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("-o", "m.engine"), InputError, "add --format engine, or name it m.onnx"),
        (("-o", "m.pth"), InputError, "not a name for an ONNX file: name it m.onnx"),
        (("--max-batch", "4", "--profile", "l4"), InputError, "--profile, --max-batch: only an engine has that"),
        ((*ENGINE, "-o", "m.onnx"), InputError, r"m\.onnx is not a name for an engine, .* name it m\.engine"),
        ((*ENGINE, "-o", "m.pth", "--force"), InputError, r"m\.pth is not a name for an engine, .* name it m\.engine"),
        ((*ENGINE, "-o", "m"), InputError, r"m is not a name for an engine, .* name it m\.engine"),
        ((*ENGINE, "--batch", "4", "--max-batch", "8"), InputError, "either a static batch"),
        ((*ENGINE, "--min-batch", "8", "--max-batch", "4"), InputError, "must ascend"),
        ((*ENGINE, "-o", "no/m.engine"), OutputError, "mkdir -p no"),
    ],
)
def test_mistakes_show_before_anything_is_made(
    source: tuple[str, ...], out: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...],
    error: type[Exception], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("evovit_deploy.export.onnx.to_onnx", lambda *a, **k: pytest.fail("the export began"))
    with pytest.raises(error, match=message):
        run(*source, *options)
    assert names(out) == set()


def test_no_tensorrt_shows_before_the_export(
    source: tuple[str, ...], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.api._installed", lambda flavour: False)
    with pytest.raises(EngineError, match="pip install") as caught:
        run(*source, "--format", "engine")
    assert caught.value.exit_code == 4

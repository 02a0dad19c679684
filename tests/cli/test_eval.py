"""`evovit eval` as a user runs it, on the shipped checkpoint and its exports."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evovit_deploy import ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.cli import app
from evovit_deploy.errors import EvoVitError, InputError, ModelFileError
from evovit_deploy.models.options import ModelOptions

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT, LABELS = DIGITS / "evo_deit_digits.pth", DIGITS / "labels.txt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    checkpoint = load_checkpoint(CHECKPOINT)
    found = {}
    for precision in ("fp32", "fp16"):
        found[precision] = folder / f"{precision}.onnx"
        export_onnx(checkpoint, found[precision], ExportOptions(ModelOptions(precision)))  # type: ignore[arg-type]
    return found


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Three test images of every digit."""
    for folder in (DIGITS / "test").iterdir():
        (tmp_path / "some" / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:3]:
            shutil.copy(image, tmp_path / "some" / folder.name)
    return tmp_path / "some"


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--provider", "cpu"])
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.mark.slow
def test_checkpoint_fp32_and_fp16_on_the_whole_test_split(exports: dict[str, Path]) -> None:
    documents = {}
    for name, pair in {"fp32": (CHECKPOINT, exports["fp32"]), "fp16": (exports["fp32"], exports["fp16"])}.items():
        result = call(pair[0], "--data", DIGITS / "test", "--against", pair[1], "--json", "--workers", 0)
        documents[name] = json.loads(result.stdout)
    for document in documents.values():
        assert document["evaluated"] == 360
        # The README of the example says 352; an ONNX file that differs by a rounding may flip a near-tie, and is then named.
        comparison = document["comparison"]
        assert len(comparison["flips"]) == 360 - comparison["agreement"]["hits"]
        assert comparison["agreement"]["hits"] >= 358
    assert documents["fp32"]["comparison"]["flips"] == []
    assert documents["fp32"]["accuracy"]["top1"]["hits"] == 352


def test_table(exports: dict[str, Path], some: Path) -> None:
    result = call(CHECKPOINT, "--data", some, "--against", exports["fp16"], "--labels", LABELS)
    assert "pytorch on cpu, fp32" in result.stdout
    assert "onnxruntime on cpu, fp16" in result.stdout
    assert "30 of 30" in result.stdout
    assert "McNemar's exact test p = 1" in result.stdout
    assert "those of the model beside it are used" in result.stderr


def test_bad_images_are_named_and_the_exit_code_says_so(some: Path, tmp_path: Path) -> None:
    (some / "3" / "x.png").write_bytes(b"")
    (some / "4" / "y.png").write_bytes(next((some / "4").glob("0*.png")).read_bytes()[:60])
    result = call(CHECKPOINT, "--data", some, "-o", tmp_path / "p.csv", code=1)
    assert "x.png: the file is empty" in result.stderr
    assert "2 of 32 images could not be evaluated" in result.stderr
    assert "30 of 32" in result.stdout
    with open(tmp_path / "p.csv", newline="") as stream:
        assert sum(bool(row["error"]) for row in csv.DictReader(stream)) == 2


def test_ctrl_c_says_how_to_go_on(some: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evovit_deploy.engines import TorchEngine

    real: Callable[..., Any] = TorchEngine.run
    batches: list[int] = []

    def run(self: TorchEngine, images: np.ndarray[Any, Any]) -> Any:
        batches.append(len(images))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "run", run)
    command = (CHECKPOINT, "--data", some, "--batch", 8, "--json")
    result = call(*command, code=130)
    assert "interrupted after 16 images, which are kept" in result.stderr
    assert result.stdout == ""
    result = call(*command)
    assert "resuming after 16 of 30 images" in result.stderr
    assert batches == [8, 8, 8, 8, 6]
    document = json.loads(result.stdout)
    assert (document["resumed"], document["accuracy"]["top1"]["count"]) == (16, 30)


def test_folders_of_unknown_classes(some: Path) -> None:
    (some / "7").rename(some / "seven")
    with pytest.raises(InputError, match="does not know 1 of the 10 class folders: 'seven' is not a class"):
        call(CHECKPOINT, "--data", some, "--labels", LABELS)


def test_wrong_usage(some: Path, exports: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, kind, reason in [
        ((CHECKPOINT, "--data", tmp_path / "empty"), InputError, "no image in this folder"),
        ((CHECKPOINT, "--data", tmp_path / "gone"), InputError, "no such file or folder"),
        ((tmp_path / "gone.onnx", "--data", some), ModelFileError, r"gone\.onnx: no such file"),
        ((next((some / "3").iterdir()), "--data", some), InputError, "is an image"),
        ((exports["fp32"], "--data", some, "--keep", "0.7"), InputError, "--keep is for checkpoints"),
        (
            (exports["fp32"], "--data", some, "--recipe", "evo_deit_tiny_patch16_224"),
            InputError,
            "a different transform",
        ),
        ((CHECKPOINT, "--data", some / "3"), InputError, "has no labels"),
    ]:
        with pytest.raises(kind, match=reason):
            call(*arguments)
    call(CHECKPOINT, code=2)
    call(CHECKPOINT, "--data", some, "--batch", 0, code=2)

"""`evovit explain` as a user runs it, on the shipped checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.errors import EvoVitError, InputError, ModelFileError

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
THREES = sorted((DIGITS / "test" / "3").iterdir())[:3]


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments), "--provider", "cpu"])
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_checkpoint(tmp_path: Path) -> None:
    result = call(CHECKPOINT, *THREES, "-o", tmp_path / "out")
    assert "kept_1: 32 of 64 patches, grid 8 x 8" in result.stdout
    assert "of kept_2 were in kept_1 too (at random: 50.0%)" in result.stdout
    assert f"3 images; 3 drawn: {tmp_path / 'out' / 'index.html'}" in result.stdout
    assert len(list((tmp_path / "out").iterdir())) == 5  # a picture each, the overview, the gallery


def test_json_and_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    result = call(CHECKPOINT, THREES[0], tmp_path / "x.png", "-o", tmp_path / "out", "--json", code=1)
    document = json.loads(result.stdout)
    assert [len(kept) for kept in document["images"][0]["kept"]] == [32, 32]
    assert document["images"][0]["classes"][0]["class"] == 3
    assert document["failures"][0]["path"] == str(tmp_path / "x.png")
    assert "1 of 2 images could not be read" in result.stderr


def test_against_itself(tmp_path: Path) -> None:
    result = call(CHECKPOINT, THREES[0], "--against", CHECKPOINT, "-o", tmp_path / "out")
    assert "Jaccard with the reference 1.0000, identical in 1 images" in result.stdout


def test_wrong_usage(tmp_path: Path) -> None:
    for arguments, kind, reason in [
        ((THREES[0], THREES[1]), InputError, "The model comes first"),
        ((tmp_path / "gone.onnx", THREES[0]), ModelFileError, "no such file"),
        ((CHECKPOINT, tmp_path / "gone.png"), InputError, "no such file or folder"),
        ((CHECKPOINT, THREES[0], "--keep", "1"), InputError, "or keeps all"),
    ]:
        with pytest.raises(kind, match=reason):
            call(*arguments, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()

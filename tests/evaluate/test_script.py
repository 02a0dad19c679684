"""`evaluate` in a script of the user's own, which its worker processes read as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from evovit_deploy import export_onnx, load_checkpoint

from ..docs.pages import ROOT, blocks

DIGITS = ROOT / "examples" / "digits"


def example() -> str:
    (block,) = [block for block in blocks(ROOT / "docs" / "evaluate.md") if block.language == "python"]
    return block.text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documented example speaks of, with two images per class."""
    folder = tmp_path_factory.mktemp("script")
    export_onnx(load_checkpoint(DIGITS / "evo_deit_digits.pth"), folder / "model.onnx")
    shutil.copy(DIGITS / "labels.txt", folder)
    for number in range(10):
        (folder / "val" / str(number)).mkdir(parents=True)
        for image in sorted((DIGITS / "test" / str(number)).iterdir())[:2]:
            shutil.copy(image, folder / "val" / str(number))
    return folder


def run(folder: Path, script: str, *, as_file: bool = True) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(script)
    environment = {**os.environ, "EVOVIT_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    words, given = ([sys.executable, "mine.py"], None) if as_file else ([sys.executable, "-"], script)
    return subprocess.run(words, input=given, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_documented_example_runs_as_typed(folder: Path) -> None:
    result = run(folder, example())
    assert result.returncode == 0, result.stderr
    assert "'count': 20}" in result.stdout


@pytest.mark.parametrize("as_file", [True, False])
def test_the_error_names_the_missing_guard(folder: Path, as_file: bool) -> None:
    before, guard, after = example().partition('if __name__ == "__main__":')
    assert guard
    result = run(folder, before + textwrap.dedent(after.partition("\n")[2]), as_file=as_file)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "the decoding workers ended before they began" in last
    assert 'must be a file, and what it does must stand under `if __name__ == "__main__":`' in last
    assert "memory" not in result.stderr

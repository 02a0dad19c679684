from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.packages import templates
from evovit_deploy.packages.templates import quoted, write_package


@given(st.text())
def test_quoted_text_comes_back_from_yaml_and_from_json_or_is_refused(text: str) -> None:
    try:
        found = quoted(text)
    except InputError:
        assert not text.isprintable()
        return
    assert yaml.safe_load(f"key: {found}") == {"key": text}
    assert json.loads(found) == text


@pytest.mark.parametrize(
    "text", ["{{ x }}", "#no comment", "yes", "1e3", "~", ": ", '"', "\\", "${HOME}", "%x", "*a", "é ñ 😀"]
)
def test_text_that_means_something_elsewhere(text: str) -> None:
    assert yaml.safe_load(quoted(text)) == text


def test_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the disk is full in the middle."""
    folder, source = tmp_path / "image", tmp_path / "model"
    source.write_text("new")

    def full(source: Path, target: Path) -> None:
        target.write_text("ha")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(templates.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        write_package(folder, {"a": "text"}, {"m": source}, force=False)
    assert not folder.exists()
    folder.mkdir()
    (folder / "a").write_text("old")
    with pytest.raises(OutputError, match="No space left"):
        write_package(folder, {"a": "text"}, {"m": source}, force=True)
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert (folder / "a").read_text() == "old"


def test_a_model_that_lies_in_the_folder_already(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("model")
    with pytest.raises(OutputError, match="--force"):
        write_package(tmp_path, {"a": "text"}, {"m": tmp_path / "m"}, force=False)
    write_package(tmp_path, {"a": "text"}, {"m": tmp_path / "m"}, force=True)
    assert (tmp_path / "m").read_text() == "model"

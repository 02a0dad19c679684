"""Records are whole lines or nothing."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from evovit_deploy.bench import records
from evovit_deploy.errors import OutputError


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    records.append(path, {"schema": 1, "a": 1}, now=now)
    records.append(path, {"schema": 1, "a": 2}, now=now)
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    assert [d["a"] for d in documents] == [1, 2]
    assert documents[0]["recorded"] == "2026-01-02T02:04:05+00:00"


def test_a_line_without_its_end_is_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"a": 0}')
    records.append(path, {"a": 1})
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.jsonl"
    records.append(path, {"a": 1})
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:5]))
    with pytest.raises(OutputError, match="Nothing was added"):
        records.append(path, {"a": 2})
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_found_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        records.check_appendable(tmp_path / "missing" / "runs.jsonl")
    with pytest.raises(OutputError, match="is a folder"):
        records.check_appendable(tmp_path)
    records.check_appendable(tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()

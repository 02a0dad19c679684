from __future__ import annotations

import os
from pathlib import Path

import pytest

from evovit_deploy.errors import ModelFileError, OutputError
from evovit_deploy.storage.files import atomic, check_writable, staged


def test_all_appear_together(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    a.write_text("old")
    with staged(a, b, c) as folder:
        (folder / "a").write_text("new a")
        (folder / "b").write_text("new b")
        assert a.read_text() == "old"
        assert not b.exists()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "new a", "b": "new b"}  # c was not made


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ModelFileError])
def test_on_an_error_what_was_there_stays(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a").write_text("old")

    def work() -> None:
        with staged(tmp_path / "a", tmp_path / "b") as folder:
            (folder / "a").write_text("new")
            raise error

    with pytest.raises(error):
        work()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_errors_speak_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError) as caught, staged(tmp_path / "a") as folder:
        raise ModelFileError(f"cannot read {folder / 'a'}: try {folder / 'b'}")
    assert str(caught.value) == f"cannot read {tmp_path / 'a'}: try {tmp_path / 'b'}"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError) as caught, staged(Path("a")) as folder:
        raise ModelFileError(f"cannot read {folder / 'a'}")
    assert str(caught.value) == "cannot read a"


def test_places_are_checked_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for paths in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "none" / "a",)):
        with pytest.raises(OutputError, match="folder"), staged(*paths):
            pytest.fail("the work began")


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left"), staged(tmp_path / "a") as folder:
        (folder / "a").write_text("new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link into /proc", "device"])
def test_devices_and_pipes_are_not_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    os.mkfifo(tmp_path / "pipe")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link to a pipe": "pipe", "link into /proc": "/proc/self/fd/1", "device": "/dev/null"}[kind])

    def found() -> tuple[float, ...]:  # not when it was read last, which reading a link changes
        status = path.lstat()
        return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink

    before = found()
    with pytest.raises(OutputError, match="not a file"):
        check_writable(path)
    with pytest.raises(OutputError, match="not a file"), atomic(path):
        pytest.fail("the work began")
    assert found() == before
    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "out.onnx"}


def test_a_name_as_long_as_a_name_may_be(tmp_path: Path) -> None:
    for name in ("a" * 255, "\u00e9" * 127):
        path = tmp_path / name
        check_writable(path)
        with atomic(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"
        with staged(path) as folder:
            (folder / name).write_text("newer")
        assert path.read_text() == "newer"
    with pytest.raises(OutputError, match="File name too long"):
        check_writable(tmp_path / ("a" * 256))

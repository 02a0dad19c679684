from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest

from evovit_deploy.errors import OutputError
from evovit_deploy.storage.cache import cache_file, cache_folder, locked, merge, read


def lines_of_both(there: bytes, ours: bytes) -> bytes:
    return b"".join(sorted(set(there.splitlines(keepends=True)) | set(ours.splitlines(keepends=True))))


def add(path: Path, worker: int) -> None:
    for i in range(10):
        merge(path, f"{worker}-{i}\n".encode(), lines_of_both)


def test_a_cache_is_keyed_by_flavour_version_and_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path))
    a = cache_file("timing", "tensorrt", "10.12.0.36", "NVIDIA L4 8.9")
    assert a == tmp_path / "timing" / "tensorrt-10.12.0.36-NVIDIA_L4_8.9.bin"
    others = {
        cache_file("timing", "tensorrt", "10.13.0", "NVIDIA L4 8.9"),
        cache_file("timing", "tensorrt", "10.12.0.36", "NVIDIA T4 7.5"),
        cache_file("timing", "tensorrt-rtx", "10.12.0.36", "NVIDIA L4 8.9"),
        cache_file("runtime", "tensorrt", "10.12.0.36", "NVIDIA L4 8.9"),
        cache_file("timing", "tensorrt", "10.12.0.36", "NVIDIA L4 8.9", "abc"),
    }
    assert len(others | {a}) == 6


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EVOVIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "evovit"


def test_the_first_to_write_is_not_combined_with_anything(tmp_path: Path) -> None:
    def never(there: bytes, ours: bytes) -> bytes:
        raise AssertionError

    path = tmp_path / "deep" / "cache.bin"
    assert read(path) == b""
    merge(path, b"one", never)
    assert read(path) == b"one"
    merge(path, b"one", never)  # nothing new


def test_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "cache.bin"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add, args=(path, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    assert set(read(path).decode().split()) == {f"{worker}-{i}" for worker in range(4) for i in range(10)}
    assert {p.name for p in tmp_path.iterdir()} == {"cache.bin", "cache.bin.lock"}


def test_a_failing_combination_leaves_the_cache_and_the_lock_alone(tmp_path: Path) -> None:
    path = tmp_path / "cache.bin"
    merge(path, b"a\n", lines_of_both)

    def broken(there: bytes, ours: bytes) -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        merge(path, b"b\n", broken)
    assert read(path) == b"a\n"
    merge(path, b"c\n", lines_of_both)  # would wait for ever if the lock were still held
    assert read(path) == b"a\nc\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="EVOVIT_CACHE"):
        merge(tmp_path / "file" / "cache.bin", b"x", lines_of_both)


def test_a_lock_shuts_out_other_threads_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "cache.bin"
    waiting = [
        multiprocessing.get_context("fork").Process(target=merge, args=(path, b"process\n", lines_of_both)),
        threading.Thread(target=merge, args=(path, b"thread\n", lines_of_both)),
    ]
    with locked(path):
        for one in waiting:
            one.start()
            one.join(0.3)
            assert one.is_alive()
        assert read(path) == b""
    for one in waiting:
        one.join()
    assert read(path) == b"process\nthread\n"

from __future__ import annotations

from pathlib import Path

import pytest

from evovit_deploy.errors import InputError
from evovit_deploy.images.folder import find_images


def test_find_images_walks_folders_sorted(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a/deep/er/x.webp", "a/readme.txt", ".hidden/x.png", "b/._1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a/deep/er/x.webp", "b/1.png", "b/2.JPG"]


def test_find_images_follows_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "val").symlink_to(tmp_path / "data")
    assert find_images([tmp_path / "set"]) == [tmp_path / "set" / "val" / "x.png"]


def test_find_images_keeps_the_order_given_and_lists_once(tmp_path: Path) -> None:
    for name in ("z.png", "a.png", "odd"):
        (tmp_path / name).touch()
    odd, z, a = tmp_path / "odd", tmp_path / "z.png", tmp_path / "a.png"
    assert find_images([odd, z, tmp_path]) == [odd, z, a]


def test_find_images_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no image in this folder.*\.png"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="gone: no such file or folder"):
        find_images([tmp_path / "gone"])
    with pytest.raises(InputError, match="no image was given"):
        find_images([])


# Batches

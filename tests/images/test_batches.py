from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.errors import InputError
from evovit_deploy.images import batches as batching
from evovit_deploy.images.batches import Failure, batches
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.folder import find_images
from evovit_deploy.images.transform import preprocess
from evovit_deploy.recipes import Transform

from .made import picture, spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(7):
        picture(20 + i, 30, seed=i).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("image_input", ["float32", "uint8"])
def test_batches_keep_order_and_equal_single_images(folder: Path, image_input: str) -> None:
    paths = find_images([folder])
    model = spec(image_input=image_input)
    result = list(batches(paths, model, 3, workers=4))
    assert [len(names) for names, _ in result] == [3, 3, 1]
    assert [path for names, _ in result for path in names] == paths
    images = np.concatenate([array for _, array in result])
    assert images.dtype == np.dtype(image_input)
    for path, image in zip(paths, images):
        np.testing.assert_array_equal(image, preprocess(load_image(path), Transform(), 16, image_input))


def test_the_model_s_own_transform_is_used(folder: Path) -> None:
    own = Transform(resize_ratio=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    [(_, a)] = batches([folder / "0.png"], spec(transform=own))
    [(_, b)] = batches([folder / "0.png"], spec(transform=None))
    np.testing.assert_array_equal(a[0], preprocess(load_image(folder / "0.png"), own, 16))
    np.testing.assert_array_equal(b[0], preprocess(load_image(folder / "0.png"), Transform(), 16))


def test_unreadable_images_are_collected_and_the_rest_goes_on(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no image")
    failures: list[Failure] = []
    result = list(batches(find_images([folder]), spec(), 3, failures=failures))
    assert [[path.name for path in names] for names, _ in result] == [
        ["0.png", "1.png", "2.png"],
        ["4.png", "5.png", "6.png"],
    ]
    [failure] = failures
    assert failure.path == folder / "3.png"
    assert failure.reason.startswith("not an image")


def test_all_unreadable_gives_no_batch(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    failures: list[Failure] = []
    assert list(batches([tmp_path / "x.png"], spec(), failures=failures)) == []
    assert [failure.reason for failure in failures] == ["the file is empty."]


def test_without_a_list_the_first_unreadable_image_raises(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.png"):
        list(batches(find_images([folder]), spec(), 3))


@pytest.mark.parametrize(("size", "workers"), [(0, 1), (1, 0)])
def test_impossible_sizes_are_refused_at_once(size: int, workers: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        batches([], spec(), size, workers)


def test_read_ahead_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lock = [], threading.Lock()

    def counting(path: Path) -> Image.Image:
        with lock:
            read.append(path)
        return picture(16, 16)

    monkeypatch.setattr(batching, "load_image", counting)
    others = set(threading.enumerate())
    paths = [folder / f"{i}.png" for i in range(1000)]
    stream = batches(paths, spec(), 4, workers=2)
    for handed_out in range(1, 6):
        next(stream)
        assert len(read) <= 4 * handed_out + 4 + 2 * 2
    stream.close()  # type: ignore[attr-defined]
    assert len(read) <= 4 * 6 + 2 * 2
    left = [thread for thread in threading.enumerate() if thread.name.startswith("evovit-decode")]
    assert set(left) <= others  # a service of another test may still have some of that name

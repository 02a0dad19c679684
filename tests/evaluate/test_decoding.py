from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.errors import EvoVitError, InputError
from evovit_deploy.evaluate import decoding
from evovit_deploy.evaluate.decoding import View, decode, default_workers
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.transform import preprocess
from evovit_deploy.recipes import Transform

VIEWS = (View.of(Transform(), 16), View.of(Transform(resize_ratio=1, interpolation="bilinear"), 24))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def variety(folder: Path) -> list[Path]:
    """Every mode that a folder of photographs is mixed of, and two files that are none."""
    rgb = noise(40, 30)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    deep = np.arange(40 * 30, dtype=np.uint16).reshape(30, 40) * 50
    savers: dict[str, Callable[[Path], Any]] = {
        "l.png": lambda p: rgb.convert("L").save(p),
        "rgba.png": lambda p: rgb.convert("RGBA").save(p),
        "cmyk.jpg": lambda p: rgb.convert("CMYK").save(p),
        "deep.png": lambda p: Image.fromarray(deep).save(p),
        "turned.jpg": lambda p: rgb.save(p, exif=rotated),
        "moving.gif": lambda p: rgb.save(p, save_all=True, append_images=[noise(40, 30, 1)]),
        "palette.png": lambda p: rgb.convert("P").save(p),
        "empty.png": lambda p: p.write_bytes(b""),
        "cut.jpg": lambda p: (rgb.save(p), p.write_bytes(p.read_bytes()[:500])),
    }
    for name, save in savers.items():
        save(folder / name)
    return [folder / name for name in savers]


def check(paths: list[Path], images: list[Any]) -> None:
    assert len(images) == len(paths)
    for path, image in zip(paths, images):
        if path.name.startswith(("empty", "cut")):
            assert isinstance(image, str)
            assert str(path) not in image  # the caller names it
            continue
        for view, pixels in zip(VIEWS, image):
            transform = Transform(view.resize_ratio, view.interpolation)  # type: ignore[arg-type]
            np.testing.assert_array_equal(pixels, preprocess(load_image(path), transform, view.size, "uint8"))


def test_modes_in_this_process(tmp_path: Path) -> None:
    paths = variety(tmp_path)
    check(paths, list(decode(paths, VIEWS, 0)))


def test_workers_give_the_same_in_order(tmp_path: Path) -> None:
    paths = variety(tmp_path) * 5
    check(paths, list(decode(paths, VIEWS, 2)))


def test_read_ahead_is_bounded_and_stops_with_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    read: list[Path] = []
    real = decoding.load_image
    monkeypatch.setattr(decoding, "load_image", lambda path: (read.append(path), real(path))[1])
    stream = decode([tmp_path / "a.png"] * 1000, VIEWS, 0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(read) == 1


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_worker_that_dies_is_an_error_that_names_images(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "stuck.png")  # a worker waits here until it is killed
    before = set(_children())
    stream = decode([tmp_path / "a.png"] * 8 + [tmp_path / "stuck.png"], VIEWS, 1)
    for _ in range(8):
        next(stream)
    for worker in set(_children()) - before:
        if "spawn_main" in Path(f"/proc/{worker}/cmdline").read_text():
            os.kill(worker, signal.SIGKILL)
    with pytest.raises(EvoVitError, match=r"worker died.*stuck\.png.*--workers"):
        next(stream)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_few_images_start_no_process() -> None:
    assert default_workers(10) == 0
    assert 1 <= default_workers(10_000) <= 8


def test_negative_workers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-1 workers"):
        list(decode([tmp_path / "a.png"], VIEWS, -1))


def test_no_images() -> None:
    assert list(decode([], VIEWS, 0)) == list(decode([], VIEWS, 2)) == []

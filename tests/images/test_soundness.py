"""Damaged data is found where the decoder does not mind, and no encoder's work is taken for damaged."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.errors import InputError
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.soundness import is_sound

PHOTOGRAPHS = sorted((Path(__file__).resolve().parents[2] / "bench" / "images").glob("*.jpg"))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
ENCODERS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "worst": {"quality": 1},
    "best": {"quality": 100},
    "own tables": {"optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive restarts": {"restart_marker_rows": 1, "progressive": True},
    "RGB": {"keep_rgb": True},
    "EXIF": {"exif": EXIF},
    "profile": {"icc_profile": bytes(100_000)},
    "comment": {"comment": b"x" * 1000},
}


def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    return small.resize((320, 240), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def garbled(data: bytes, after: bytes, seed: int, count: int = 1000) -> bytes:
    """Some bytes of the pixels' data are others."""
    rng = random.Random(seed)
    place = rng.randrange(data.index(after) + 14, len(data) - count - 20)
    return data[:place] + bytes(rng.randrange(255) for _ in range(count)) + data[place + count :]


@pytest.fixture(autouse=True)
def installed() -> None:
    pytest.importorskip("simplejpeg")


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
def test_photographs_are_sound(path: Path) -> None:
    data = path.read_bytes()
    assert is_sound(data)
    assert is_sound(data + b"what some tools leave behind the end")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", ENCODERS)
def test_what_encoders_write_is_sound(name: str, mode: str) -> None:
    options = {key: value for key, value in ENCODERS[name].items() if mode == "RGB" or key != "keep_rgb"}
    for size in ((320, 240), (1, 1), (7, 3)):
        data = encoded(picture().convert(mode).resize(size), **options)
        assert is_sound(data)
        assert is_sound(data.removesuffix(b"\xff\xd9"))
        Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize("name", ["baseline", "4:4:4", "4:2:2", "best", "own tables", "EXIF"])
def test_a_jpeg_with_garbled_data_is_found(name: str) -> None:
    data = encoded(picture(), **ENCODERS[name])
    broken = [garbled(data, b"\xff\xda", seed) for seed in range(40)]
    for each in broken:
        Image.open(io.BytesIO(each)).load()  # Pillow takes it
    assert sum(map(is_sound, broken)) <= 8  # now and then other bytes mean as many blocks, which nothing can tell


def test_what_is_no_jpeg_or_cannot_be_looked_at_is_left_to_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = garbled(encoded(picture()), b"\xff\xda", 0)
    assert not is_sound(broken)
    for data in (b"", b"\xff\xd8\xff", b"\xff\xd8\xff" + bytes(1000), encoded(picture(), "PNG")):
        assert is_sound(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert is_sound(broken)


@pytest.mark.parametrize(("kind", "after"), [("PNG", b"IDAT"), ("WEBP", b"VP8 ")])
def test_other_formats_are_looked_at_by_their_decoders(kind: str, after: bytes, tmp_path: Path) -> None:
    data = encoded(picture(), kind)
    for number, broken in enumerate(
        [garbled(data, after, 1), data[: len(data) // 2], data[:-100]]
        if kind == "PNG"
        else [data[: len(data) // 2], data[:-10]]
    ):
        path = tmp_path / f"{number}.{kind.lower()}"
        path.write_bytes(broken)
        with pytest.raises(InputError):
            load_image(path)

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.errors import InputError
from evovit_deploy.images.decode import load_image

from .made import picture


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (255, 0, 0)  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to view
    Image.fromarray(pixels).save(tmp_path / "phone.jpg", exif=exif, quality=95, subsampling=0)
    image = load_image(tmp_path / "phone.jpg")
    assert image.size == (20, 40)
    assert image.getpixel((10, 5))[0] > 200  # type: ignore[index]
    assert image.getpixel((10, 35))[0] < 50  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_lose_the_image(tmp_path: Path) -> None:
    # The marker is well formed, its directory is not.
    picture(20, 20).save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff garbage")
    assert load_image(tmp_path / "x.jpg").size == (20, 20)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    name = tmp_path / ("x.png" if mode in ("L", "1", "LA", "P", "RGBA") else "x.tif")
    picture(12, 10).convert(mode).save(name)
    image = load_image(name)
    assert (image.mode, image.size) == ("RGB", (12, 10))
    if mode == "L":
        np.testing.assert_array_equal(np.asarray(image)[..., 0], np.asarray(picture(12, 10).convert("L")))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_ycbcr_tiff(tmp_path: Path, compression: str | None) -> None:
    """Uncompressed, Pillow before 13 alone calls it truncated."""
    image = picture(40, 30).convert("YCbCr")
    image.save(tmp_path / "x.tif", compression=compression)
    found = np.asarray(load_image(tmp_path / "x.tif")).astype(int)
    assert np.abs(found - np.asarray(image.convert("RGB"))).max() <= 1  # libtiff rounds differently


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), (10, 20, 30, 0), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png").getpixel((0, 0)) == (10, 20, 30)


def test_palette_with_transparency_gives_no_warning(tmp_path: Path) -> None:
    palette = picture(8, 8).convert("P")
    palette.save(tmp_path / "x.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = load_image(tmp_path / "x.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    if suffix == "pgm":  # Pillow before 11 does not write it
        (tmp_path / "x.pgm").write_bytes(b"P5 5 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / f"x.{suffix}"))[0, :, 1], [0, 0, 1, 128, 255])


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x\.tif: pixels are 32-bit"):
        load_image(tmp_path / "x.tif")


def test_animation_gives_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "x.gif").getpixel((3, 3)) == (255, 0, 0)


def test_two_pictures_of_a_phone_in_one_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(
        tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    )
    assert load_image(tmp_path / "x.jpg").getpixel((3, 3))[0] > 200  # type: ignore[index]


def _png() -> bytes:
    stream = io.BytesIO()
    picture(64, 64).save(stream, "PNG")
    return stream.getvalue()


def _jpeg() -> bytes:
    stream = io.BytesIO()
    picture(64, 64).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"hello", "not an image"),
        ("cut.jpg", _jpeg()[:800], "cannot be read"),
        ("cut.png", _png()[:800], "cannot be read"),
        ("header.png", _png()[:12], "cannot be read|not an image"),
        ("crc.png", _png()[:200] + b"\xff" * 40 + _png()[240:], "cannot be read"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "not an image"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        load_image(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: cannot be read as an image: No such file"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match=tmp_path.name):
        load_image(tmp_path)


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(64, 64).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"bomb\.png: refused, too many pixels .*MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "bomb.png")


# Finding

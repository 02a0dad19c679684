from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.engines import ModelSpec
from evovit_deploy.errors import InputError
from evovit_deploy.images import transform as pre
from evovit_deploy.images.transform import batches, find_images, load_image, preprocess, resize_size
from evovit_deploy.recipes import Transform, load_recipe, recipe_names


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def spec(size: int = 16, image_input: str = "float32", transform: Transform | None = Transform()) -> ModelSpec:  # noqa: B008
    return ModelSpec("m", size, image_input, 10, ("logits",), transform=transform)


# The eval transform


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (300, 200, 64), (201, 333, 64), (73, 74, 64), (64, 64, 64), (65, 64, 56), (17, 9, 64), (9, 17, 64), (1, 1, 32),
        (3, 40, 48), (500, 375, 112), (511, 333, 97), (128, 128, 112), (100, 31, 24), (768, 25, 16),
    ],
)  # fmt: skip
def test_equals_torchvision_bit_by_bit(width: int, height: int, size: int, interpolation: str) -> None:
    from torchvision import transforms

    transform = Transform(interpolation=interpolation)  # type: ignore[arg-type]
    mode = transforms.InterpolationMode(interpolation)
    cut = transforms.Compose([transforms.Resize(int(256 / 224 * size), mode), transforms.CenterCrop(size)])
    image = picture(width, height, seed=width)
    expected = cut(image)
    np.testing.assert_array_equal(preprocess(image, transform, size, "uint8"), np.asarray(expected))
    tensor = transforms.Normalize(transform.mean, transform.std)(transforms.ToTensor()(expected)).numpy()
    result = preprocess(image, transform, size)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(result, tensor)


@pytest.mark.parametrize("name", recipe_names())
def test_resize_size_of_the_recipes(name: str) -> None:
    recipe = load_recipe(name)
    assert (
        resize_size(recipe.transform, recipe.structure.image_size) == {224: 256, 384: 438}[recipe.structure.image_size]
    )


def test_resize_size_survives_a_ratio_written_in_decimal() -> None:
    ratio = 1.1428571428571426  # 256 / 224 less one unit in the last place
    assert ratio * 224 < 256
    assert resize_size(Transform(resize_ratio=ratio), 224) == 256
    assert resize_size(Transform(resize_ratio=1.0), 224) == 224


@pytest.mark.parametrize(("width", "height"), [(40000, 3), (3, 40000)])
def test_extreme_aspect_is_cropped_without_the_whole_resize(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import transforms

    # Contrast low enough that no value is clipped between the horizontal and the vertical pass, whose order may differ.
    image = picture(width, height).point(lambda value: 96 + value // 4)
    expected = np.asarray(transforms.CenterCrop(16)(transforms.Resize(18, transforms.InterpolationMode.BICUBIC)(image)))
    sizes = []
    resize = Image.Image.resize

    def spy(self: Image.Image, target: tuple[int, int], *args: object, **kwargs: object) -> Image.Image:
        sizes.append(target)
        return resize(self, target, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    result = preprocess(image, Transform(), 16, "uint8")
    assert sizes == [(16, 16)]
    assert np.ptp(expected) > 20
    # Rounded twice, and the box is single precision.
    assert np.abs(result.astype(int) - expected).max() <= 2


def test_uint8_result_is_writable_and_its_own() -> None:
    result = preprocess(picture(16, 16), Transform(resize_ratio=1.0), 16, "uint8")
    assert result.shape == (16, 16, 3)
    result[:] = 0  # np.asarray of an image is read-only


# Reading


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
    failures: list[pre.Failure] = []
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
    failures: list[pre.Failure] = []
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

    monkeypatch.setattr(pre, "load_image", counting)
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

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.images.transform import preprocess, resize_size
from evovit_deploy.recipes import Transform, load_recipe, recipe_names

from .made import picture


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

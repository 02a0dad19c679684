"""The eval transform: from an image to what a model takes.

Sizes and rounding are those of ``torchvision.transforms``: ``Resize(int(ratio * S))``, ``CenterCrop(S)``, ``ToTensor()``,
``Normalize(mean, std)`` on PIL images, so accuracies measured in training carry over bit by bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..recipes import Transform

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["normalise", "preprocess", "resize_size"]

Array = NDArray[Any]

# Beyond this aspect ratio the resized image would be mostly thrown away by the crop, and could fill the memory.
_EXTREME_ASPECT = 32


def resize_size(transform: Transform, size: int) -> int:
    """Return the length in pixels that the shorter side is resized to: ``int(resize_ratio * size)``, as the authors round."""
    # A ratio written with 16 digits may give 255.99999999999997 where 256 is meant.
    return int(transform.resize_ratio * size + 1e-6)


def preprocess(image: Image, transform: Transform, size: int, image_input: str = "float32") -> Array:
    """Apply the eval transform: resize the shorter side, crop the centre, normalise.

    Args:
        image: RGB.
        transform: From ``ModelSpec.transform`` or a recipe.
        size: S, pixels.
        image_input: ``float32`` or ``uint8``, from ``ModelSpec.input``.

    Returns:
        [3, S, S] float32 normalised, or [S, S, 3] uint8.
    """
    pixels = np.asarray(_crop(image, transform, size))
    return pixels.copy() if image_input == "uint8" else normalise(pixels, transform)


def _crop(image: Image, transform: Transform, size: int) -> Image:
    from PIL import Image as images

    resample = images.Resampling[transform.interpolation.upper()]
    width, height = image.size
    short, short_to = min(width, height), resize_size(transform, size)
    new_width = short_to if width == short else short_to * width // height
    new_height = short_to if height == short else short_to * height // width
    left, top = round((new_width - size) / 2), round((new_height - size) / 2)
    if max(width, height) > _EXTREME_ASPECT * short:
        # Only the part under the crop: the same filter, up to the order and the rounding of its two passes.
        x, y = width / new_width, height / new_height
        return image.resize((size, size), resample, box=(left * x, top * y, (left + size) * x, (top + size) * y))
    if (width, height) != (new_width, new_height):
        image = image.resize((new_width, new_height), resample)
    return image.crop((left, top, left + size, top + size))


def normalise(pixels: Array, transform: Transform) -> Array:
    """[..., S, S, 3] uint8 -> [..., 3, S, S] float32: divide by 255, subtract the mean, divide by std."""
    mean, std = np.array(transform.mean, np.float32), np.array(transform.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(values, -1, -3))

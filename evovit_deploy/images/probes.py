"""The images that a proof runs on: photographs, seeded images with structure, and hard cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..recipes import Recipe, Transform
from ..storage.shipped import data_folder
from .decode import load_image
from .folder import find_images
from .transform import normalise, preprocess

__all__ = ["Probes", "probe_images", "sample_images"]

Array = NDArray[Any]
SEEDED = 4


@dataclass(frozen=True)
class Probes:
    """Images to compare two models on.

    Attributes:
        names: Of every image: ``astronaut.jpg``, ..., ``seeded 1``, ..., ``white``, ``black``, ``noise``.
        pixels: [n, S, S, 3] uint8, resized and cropped as the model's transform says.
    """

    names: tuple[str, ...]
    pixels: Array

    def prepared(self, transform: Transform, image_input: str) -> Array:
        """Return [n, 3, S, S] float32 normalised for a ``float32`` input, else the pixels [n, S, S, 3] uint8."""
        return self.pixels if image_input == "uint8" else normalise(self.pixels, transform)


def probe_images(recipe: Recipe, seed: int = 0) -> Probes:
    """Return the shipped photographs, seeded images with structure, and what is hard on half precision: white, black, noise.

    Photographs are what a model sees in use. A flat image has the largest activations of one kind and scores that nearly
    tie; white noise makes all patches alike.

    Args:
        recipe: Image size and transform.
        seed: Of the seeded images and the noise.

    Raises:
        InputError: A shipped photograph is missing or cannot be read: the installation is damaged.
    """
    size = recipe.structure.image_size
    names, images = [], []
    for path in find_images([data_folder("bench") / "images"]):
        names.append(path.name)
        images.append(preprocess(load_image(path), recipe.transform, size, "uint8"))
    names += [f"seeded {number}" for number in range(1, SEEDED + 1)]
    images += list(sample_images(recipe, "uint8", SEEDED, seed))
    hard = {
        "white": np.full((size, size, 3), 255, np.uint8),
        "black": np.zeros((size, size, 3), np.uint8),
        "noise": np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8),
    }
    return Probes((*names, *hard), np.stack([*images, *hard.values()]))


def sample_images(recipe: Recipe, image_input: str, count: int = SEEDED, seed: int = 0) -> Array:
    """Return seeded images with structure at several scales, so that some patches matter more than others.

    White noise makes all patches alike and every selection a near-tie, which no photograph does.

    Args:
        recipe: Image size and transform.
        image_input: ``float32`` gives [n, 3, S, S] normalised, ``uint8`` [n, S, S, 3].
        count: n.
        seed: Of the images.
    """
    from PIL import Image

    size = recipe.structure.image_size
    random = np.random.default_rng(seed)
    pixels = np.zeros((count, size, size, 3))
    for cells in (2, 5, 11, 23):
        coarse = random.integers(0, 256, (count, cells, cells, 3), dtype=np.uint8)
        layers = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
        pixels += np.stack(layers) / 4
    images = pixels.clip(0, 255).astype(np.uint8)
    if image_input == "uint8":
        return images
    return normalise(images, recipe.transform)

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

__all__ = ["HARD", "Probes", "probe_images", "sample_images"]

Array = NDArray[Any]
SEEDED = 4
HARD = ("white", "black", "noise", "saturated", "high contrast", "large token")
CELL = 16  # pixels a side of what the hard images are made of: the usual patch


@dataclass(frozen=True)
class Probes:
    """Images to compare two models on.

    Attributes:
        names: Of every image: ``astronaut.jpg``, ..., ``seeded 1``, ..., and those of :data:`HARD`.
        pixels: [n, S, S, 3] uint8, resized and cropped as the model's transform says.
    """

    names: tuple[str, ...]
    pixels: Array

    def prepared(self, transform: Transform, image_input: str) -> Array:
        """Return [n, 3, S, S] float32 normalised for a ``float32`` input, else the pixels [n, S, S, 3] uint8."""
        return self.pixels if image_input == "uint8" else normalise(self.pixels, transform)


def probe_images(recipe: Recipe, seed: int = 0, kernels: Array | None = None) -> Probes:
    """Return the shipped photographs, seeded images with structure, and what is hard on half precision (:data:`HARD`).

    Photographs are what a model sees in use. A flat image (white, black) has the largest activations of one kind and scores
    that nearly tie; white noise makes all patches alike; saturated colours and a chequerboard of black and white have the
    largest contrast between patches; and one patch that the patch embedding answers to most strongly, on grey, gives the
    largest token.

    Args:
        recipe: Image size and transform.
        seed: Of the seeded images and the noise.
        kernels: [C, 3, P, P] of a patch embedding, for the largest token; without them its patch is noise of black and white.

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
    return Probes((*names, *HARD), np.stack([*images, *_hard_images(recipe, seed, kernels)]))


def _hard_images(recipe: Recipe, seed: int, kernels: Array | None) -> list[Array]:
    """The images of :data:`HARD`, each [S, S, 3] uint8."""
    size, random = recipe.structure.image_size, np.random.default_rng(seed)
    noise = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    cells = -(-size // CELL)
    colours = 255 * random.integers(0, 2, (cells, cells, 3), dtype=np.uint8)
    board = 255 * (np.indices((cells, cells)).sum(0) % 2).astype(np.uint8)[..., None].repeat(3, 2)
    blown = [part.repeat(CELL, 0).repeat(CELL, 1)[:size, :size] for part in (colours, board)]
    token = np.full((size, size, 3), 128, np.uint8)
    patch = _strongest_patch(kernels, recipe.transform) if kernels is not None else None
    if patch is None:
        patch = 255 * random.integers(0, 2, (CELL, CELL, 3), dtype=np.uint8)
    start = size // 2 // len(patch) * len(patch)
    place = token[start : start + len(patch), start : start + len(patch)]
    place[:] = patch[: len(place), : len(place)]
    white, black = (np.full((size, size, 3), value, np.uint8) for value in (255, 0))
    return [white, black, noise, *blown, token]


def _strongest_patch(kernels: Array, transform: Transform) -> Array:
    """The patch [P, P, 3] uint8 with the largest answer of any kernel [C, 3, P, P]: white where that is positive, else black."""
    weights = kernels / np.asarray(transform.std, kernels.dtype)[:, None, None]
    strongest = weights[np.abs(weights).sum((1, 2, 3)).argmax()]
    return np.where(strongest > 0, 255, 0).astype(np.uint8).transpose(1, 2, 0)


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

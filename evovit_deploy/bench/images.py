"""The images that are measured with: the same for every model of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..recipes import Evolution, Recipe, Structure, Transform
from ..storage.shipped import data_folder

if TYPE_CHECKING:
    from ..manifest.spec import ModelSpec

__all__ = ["DISTINCT", "SOURCES", "Images", "batch_of", "choose_images", "seeded_images"]

DISTINCT = 16
SOURCES = ("sample", "synthetic", "noise")


@dataclass(frozen=True)
class Images:
    """What is measured with.

    Attributes:
        images: [n, 3, S, S] float32 normalised or [n, S, S, 3] uint8, as the models take it.
        described: In words, without a path.
        files: The image files, all that were found; empty for generated ones.
        notes: What was left out of the folder.
    """

    images: NDArray[Any]
    described: str
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def choose_images(source: str, spec: ModelSpec, count: int, seed: int = 0) -> Images:
    """Return images for a model.

    Args:
        source: ``sample`` for the eight photographs that ship with the package, ``synthetic``, ``noise``, or a folder or file.
        spec: Image size, input type and transform.
        count: Images wanted, e.g. the largest batch; at most 16 different ones are made, and repeated.
        seed: Of generated images.

    Raises:
        InputError: No such folder, no image in it, or an image that cannot be read.
    """
    from ..images.batches import batches
    from ..images.folder import find_images

    if source == "synthetic":
        return Images(*seeded_images(spec, count, seed))
    if source == "noise":
        shape = (min(count, DISTINCT), *spec.image_shape)
        random = np.random.default_rng(seed)
        values = random.integers(0, 256, shape) if spec.input == "uint8" else random.standard_normal(shape)
        return Images(values.astype(spec.input), f"{shape[0]} of white noise (seed {seed}), the same for every model")
    folder = data_folder("bench") / "images" if source == "sample" else Path(source)
    notes: list[str] = []
    files = find_images([folder], notes)
    wanted = min(count, DISTINCT, len(files))
    chosen = [files[i * len(files) // wanted] for i in range(wanted)]  # spread, as a folder is often sorted by class
    images = np.concatenate([images for _, images in batches(chosen, spec)])
    what = "the shipped photographs" if source == "sample" else f"the image files in {folder.resolve().name}"
    described = f"{wanted} of {what}, the same for every model"
    return Images(images, described, tuple(files) if source != "sample" else (), tuple(notes))


def seeded_images(spec: ModelSpec, count: int, seed: int = 0) -> tuple[NDArray[Any], str]:
    """Make up to 16 different images for a model, and what they are in words.

    Not white noise: which tokens are kept depends on the content, and noise has no parts that matter more than others.

    Args:
        spec: Image size, input type and transform.
        count: Images wanted, e.g. the largest batch.
        seed: Of the images.
    """
    from ..images.probes import sample_images

    n = min(count, DISTINCT)
    size = Structure(image_size=spec.image_size, patch_size=1, embed_dim=1, depth=1, num_heads=1)
    every_token = Evolution((1.0,), (1.0,), stage_starts=())
    # Only the size and the transform matter here, and a file of another tool has no recipe.
    recipe = Recipe(spec.name, "deit", size, every_token, spec.transform or Transform())
    text = f"{n} seeded synthetic image{'' if n == 1 else 's'} with structure at several scales (seed {seed})"
    return sample_images(recipe, spec.input, n, seed), f"{text}, the same for every model"


def batch_of(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the first ``size`` images, from the start again when there are fewer; contiguous."""
    return np.ascontiguousarray(images[np.arange(size) % len(images)])

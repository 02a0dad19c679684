"""The images that are measured with: the same for every model of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..recipes import Evolution, Recipe, Structure, Transform

if TYPE_CHECKING:
    from ..engines.base import ModelSpec

__all__ = ["DISTINCT", "batch_of", "seeded_images"]

DISTINCT = 16


def seeded_images(spec: ModelSpec, count: int, seed: int = 0) -> tuple[NDArray[Any], str]:
    """Up to 16 different images for a model, and what they are in words.

    Not white noise: which tokens are kept depends on the content, and noise has no parts that matter more than others.

    Args:
        spec: Image size, input type and transform.
        count: Images wanted, e.g. the largest batch.
        seed: Of the images.
    """
    from ..export.parity import sample_images

    n = min(count, DISTINCT)
    size = Structure(image_size=spec.image_size, patch_size=1, embed_dim=1, depth=1, num_heads=1)
    every_token = Evolution((1.0,), (1.0,), stage_starts=())
    # Only the size and the transform matter here, and a file of another tool has no recipe.
    recipe = Recipe(spec.name, "deit", size, every_token, spec.transform or Transform())
    text = f"{n} seeded synthetic image{'' if n == 1 else 's'} with structure at several scales (seed {seed})"
    return sample_images(recipe, spec.input, n, seed), f"{text}, the same for every model"


def batch_of(images: NDArray[Any], size: int) -> NDArray[Any]:
    """The first ``size`` images, from the start again when there are fewer; contiguous."""
    return np.ascontiguousarray(images[np.arange(size) % len(images)])

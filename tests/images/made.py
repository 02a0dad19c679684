from __future__ import annotations

import numpy as np
from PIL import Image

from evovit_deploy.manifest.spec import ModelSpec
from evovit_deploy.recipes import Transform


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def spec(size: int = 16, image_input: str = "float32", transform: Transform | None = Transform()) -> ModelSpec:  # noqa: B008
    return ModelSpec("m", size, image_input, 10, ("logits",), transform=transform)


# The eval transform

"""What every family does to fit a recipe and position embeddings to weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recipes import Published, Recipe
from ..recipes.forms import Network

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_image_size", "fit", "headless_note", "resize_position_embedding"]


def fit(base: Recipe, structure: Network, derived: str, network: tuple[str, ...]) -> Recipe:
    """Return ``base`` for the structure that was found; what is no longer true of it is left out.

    Args:
        base: A recipe of the same family.
        structure: As found.
        derived: Its name if the network is another one.
        network: Fields of the structure that make it another network.
    """
    old = base.structure
    if any(getattr(old, name) != getattr(structure, name) for name in network):
        return dataclasses.replace(base, name=derived, structure=structure, baseline="", published=Published())
    name, baseline, published = base.name, base.baseline, base.published
    if old.image_size != structure.image_size:
        name = f"{name.removesuffix(f'_{old.image_size}')}_{structure.image_size}"
        baseline = ""
    if (old.image_size, old.num_classes) != (structure.image_size, structure.num_classes):
        published = Published()
    return dataclasses.replace(base, name=name, structure=structure, baseline=baseline, published=published)


def headless_note(structure: Network) -> list[str]:
    """Say what a model without a classifier gives; nothing of one that has it."""
    if structure.head:
        return []
    return [f"there is no classification head: the output is `embedding`, the model's {structure.num_classes} features"]


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raise InputError, naming the valid neighbours, if patches do not tile images of this size."""
    if image_size >= patch_size and image_size % patch_size == 0:
        return
    below = image_size // patch_size * patch_size
    neighbours = (
        [str(size) for size in (below, below + patch_size) if size > 0] if image_size > 0 else [str(patch_size * 14)]
    )
    raise InputError(
        f"image size {image_size} is not a positive multiple of the patch size {patch_size}; valid neighbours: "
        f"{' or '.join(neighbours)}."
    )


def resize_position_embedding(embedding: Tensor, grid: int, mode: str = "bilinear") -> Tensor:
    """Resample the patch positions of a position embedding as the authors do on loading; the class token's row stays.

    Args:
        embedding: [1, 1 + G G, C] float32.
        grid: New number of patches a side.
        mode: ``bilinear`` or ``bicubic``.

    Returns:
        [1, 1 + grid grid, C] float32; corners not aligned.
    """
    import torch

    old = round((embedding.shape[1] - 1) ** 0.5)
    patches = embedding[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, (grid, grid), mode=mode, align_corners=False)
    return torch.cat((embedding[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)), 1)

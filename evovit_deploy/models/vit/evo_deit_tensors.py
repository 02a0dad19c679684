"""State dicts of Evo-DeiT in the authors' names: sizes from the tensors, every tensor checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ...errors import CheckpointError
from ...recipes import Recipe, Structure
from ...recipes.vit import Pool
from ..checks import check_tensors, shape_of
from ..fitting import check_image_size, resize_position_embedding

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sizes", "expected_shapes", "measure", "resized", "to_float32"]

_NUMBERED = re.compile(r"(blocks|qks|vs|norms|projs)\.(\d{1,4})\.")


class Sizes(NamedTuple):
    """What the tensors say about the structure; heads are not among it. Without a classifier there are 0 classes."""

    embed_dim: int
    depth: int
    patch_size: int
    grid: int
    hidden: int
    num_classes: int

    def structure(self, image_size: int, num_heads: int, pool: Pool = "patches") -> Structure:
        """Return the network, for images of this size."""
        return Structure(
            image_size=image_size,
            patch_size=self.patch_size,
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=num_heads,
            mlp_ratio=self.hidden / self.embed_dim,
            num_classes=self.num_classes or self.embed_dim,
            pool=pool,
            head=self.num_classes > 0,
        )

    def fits(self, recipe: Recipe) -> bool:
        """Return whether a recipe is for this network, whatever its images and heads."""
        found = recipe.network(Structure)
        return (found.embed_dim, found.patch_size, found.depth) == (self.embed_dim, self.patch_size, self.depth)


def measure(state: dict[str, Tensor], where: str, label: str = "an Evo-DeiT") -> Sizes:
    """Return the structure of an Evo-DeiT, or of another ViT of these names, from its tensors.

    Args:
        state: With one class token, and positions for it and a square grid of patches.
        where: The checkpoint, for messages.
        label: What the tensors should be, for messages.

    Raises:
        CheckpointError: The tensors are those of another model, or do not fit together.
    """
    depth = _depth(state, where)
    width = shape_of(state, "cls_token", (1, 1, None), label, where)[2]
    rows, patch_size = _patch(state, label, where)
    tokens = shape_of(state, "pos_embed", (1, None, width), label, where)[1]
    grid = math.isqrt(max(tokens - 1, 0))
    if grid < 1 or grid * grid != tokens - 1:
        raise CheckpointError(
            f"{where}: `pos_embed` has {tokens} tokens; expected one class token and a square grid of patches, such as "
            f"{(grid or 1) ** 2 + 1} or {(grid + 1) ** 2 + 1}."
        )
    if rows != width:
        raise CheckpointError(
            f"{where}: `patch_embed.proj.weight` has {rows} output channels, `cls_token` has {width}; both are the "
            "embed dim."
        )
    hidden = shape_of(state, "blocks.0.mlp.fc1.weight", (None, width), label, where)[0]
    classes = shape_of(state, "head.weight", (None, width), label, where)[0] if _has_head(state) else 0
    return Sizes(width, depth, patch_size, grid, hidden, classes)


def _has_head(state: dict[str, Tensor]) -> bool:
    return any(key.startswith("head.") for key in state)


def _depth(state: dict[str, Tensor], where: str) -> int:
    numbers = {int(match[2]) for key in state if (match := _NUMBERED.match(key))}
    missing = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if missing:
        raise CheckpointError(
            f"{where}: block {missing[0]} is missing; blocks are numbered from 0 to {max(numbers, default=11)} without "
            "gaps. Save the whole state dict."
        )
    return len(numbers)


def _patch(state: dict[str, Tensor], label: str, where: str) -> tuple[int, int]:
    """(output channels, patch size), also of the 2-D form [C, 3 P P] from before patches were cut by a convolution."""
    key = "patch_embed.proj.weight"
    if key in state and state[key].dim() == 2:
        rows, columns = shape_of(state, key, (None, None), label, where)
        size = math.isqrt(columns // 3)
        if size < 1 or 3 * size * size != columns:
            raise CheckpointError(
                f"{where}: `{key}` has shape [{rows}, {columns}]; expected [C, 3 P P] for a patch size P."
            )
        return rows, size
    rows, _, height, width = shape_of(state, key, (None, 3, None, None), label, where)
    if height != width:
        raise CheckpointError(f"{where}: `{key}` cuts patches of {height} x {width}; expected square ones.")
    return rows, height


def resized(weights: dict[str, Tensor], sizes: Sizes, image_size: int | None, mode: str) -> tuple[int, list[str]]:
    """Resize the position embedding, in place, if it is not for images of this size; return the size, and a note on it."""
    own_size, patch = sizes.grid * sizes.patch_size, sizes.patch_size
    target = own_size if image_size is None else image_size
    check_image_size(target, patch)
    if target == own_size:
        return target, []
    grid = target // patch
    weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], grid, mode)
    note = (
        f"position embedding resized from {sizes.grid} x {sizes.grid} to {grid} x {grid} patches ({mode}) for images of "
        f"{target} pixels; the model was trained at {own_size}"
    )
    return target, [note]


def expected_shapes(sizes: Sizes, block: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, tuple[int, ...]]:
    """Return every parameter for inference, with its shape.

    Args:
        sizes: Of the network.
        block: Layers of one block, with ``{}`` for its number -> shape of the weight. None is the names of Evo-DeiT's authors.
    """
    c, h, p = sizes.embed_dim, sizes.hidden, sizes.patch_size
    block = block or {
        "blocks.{}.norm2": (c,),
        "blocks.{}.mlp.fc1": (h, c),
        "blocks.{}.mlp.fc2": (c, h),
        "qks.{}.qk": (2 * c, c),
        "vs.{}.v": (c, c),
        "norms.{}": (c,),
        "projs.{}": (c, c),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, c),
        "pos_embed": (1, 1 + sizes.grid**2, c),
        "patch_embed.proj.weight": (c, 3, p, p),
        "patch_embed.proj.bias": (c,),
    }

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"] = weight
        shapes[f"{name}.bias"] = weight[:1]

    for i in range(sizes.depth):
        for name, weight in block.items():
            layer(name.format(i), *weight)
    layer("norm", c)
    if sizes.num_classes:
        layer("head", sizes.num_classes, c)
    return shapes


def to_float32(state: dict[str, Tensor], sizes: Sizes, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Check every tensor and copy it to float32, and say what had to be filled in.

    Raises:
        CheckpointError: Missing or unexpected keys, a wrong shape, integer or complex tensors, NaN or Inf.
    """
    import torch

    shapes, notes = expected_shapes(sizes), []
    state = dict(state)
    weight = state["patch_embed.proj.weight"]
    if weight.dim() == 2:
        state["patch_embed.proj.weight"] = weight.reshape(shapes["patch_embed.proj.weight"])
        notes.append("patch_embed.proj.weight was stored as a matrix and reshaped to a convolution")
    biases = [f"{part}.{i}.{name}.bias" for i in range(sizes.depth) for part, name in (("qks", "qk"), ("vs", "v"))]
    if not any(key in state for key in biases):  # trained with qkv_bias=False
        state.update({key: torch.zeros(shapes[key]) for key in biases})
        notes.append("q, k and v have no bias in this checkpoint; zeros stand in for it")
    return check_tensors(state, shapes, f"an Evo-DeiT of {sizes.depth} blocks", where), notes

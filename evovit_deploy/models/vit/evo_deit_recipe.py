"""From sizes to a recipe: heads, schedule and name, which a checkpoint does not store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import CheckpointError, InputError
from ...recipes import Evolution, LevitStructure, Published, Recipe, Structure, load_recipe, recipe_names
from .evo_deit_tensors import Sizes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_image_size", "fit", "identify", "resize_position_embedding"]

HEAD_DIM = 64  # D of every published model
_PUBLISHED_DEPTH = 12
# Half of the patches from block 4 on, as in every shipped recipe.
_PUBLISHED = Evolution(keep_ratios=(1.0,) * 4 + (0.5,) * 8, tradeoff=(1.0,) * 4 + (0.5,) * 8)


def identify(
    sizes: Sizes,
    image_size: int,
    args: Mapping[str, str],
    recipe: str | Recipe | None,
    num_heads: int | None,
    where: str,
) -> tuple[Recipe, list[str]]:
    """Return the recipe of a checkpoint, with the structure of its tensors, and notes on what was assumed.

    Args:
        sizes: From the tensors.
        image_size: Pixels per side, after any resize.
        args: Training arguments; ``model`` may name a shipped recipe.
        recipe: What the user gave: a name, a path, or a recipe.
        num_heads: What the user gave.
        where: The checkpoint, for messages.

    Raises:
        CheckpointError: Heads or schedule cannot be told; the message says which option to give.
        RecipeError: ``recipe`` does not exist or is broken.
    """
    base = _given(recipe, sizes, where) if recipe is not None else _shipped(sizes, image_size, args.get("model", ""))
    heads = _heads(sizes, base, num_heads, where)
    structure = Structure(
        image_size=image_size,
        patch_size=sizes.patch_size,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=heads,
        mlp_ratio=sizes.hidden / sizes.embed_dim,
        num_classes=sizes.num_classes,
    )
    derived = f"evo_deit_c{sizes.embed_dim}h{heads}_patch{sizes.patch_size}_{image_size}"
    if base is None:
        if sizes.depth != _PUBLISHED_DEPTH:
            raise CheckpointError(
                f"{where} has {sizes.depth} blocks; the published schedule is for {_PUBLISHED_DEPTH}, and a checkpoint "
                "does not store its own. Write a recipe with one keep ratio and one tradeoff per block (copy a shipped "
                f"one, such as {recipe_names()[0]}.toml) and give it with --recipe."
            )
        source = "the published Evo-DeiT schedule"
        result = Recipe(derived, "evo_deit", structure, _PUBLISHED)
    else:
        source = f"recipe {base.name}"
        result = fit(base, structure, derived, ("patch_size", "embed_dim", "depth", "num_heads"))
    ratios = sorted(set(result.evolution.keep_ratios), reverse=True)
    note = (
        f"keep ratios ({', '.join(f'{r:g}' for r in ratios)}) and tradeoff come from {source}, since a checkpoint does "
        "not store them; if it was trained with others, give --keep or a recipe"
    )
    notes = [note]
    if base is not None and base.as_deit[0].embed_dim != sizes.embed_dim:
        notes.append(
            f"recipe {base.name} is for embed dim {base.as_deit[0].embed_dim}, the checkpoint has {sizes.embed_dim}: "
            "schedule and transform are the recipe's, the structure is the checkpoint's"
        )
    return result, notes


def _given(recipe: str | Recipe, sizes: Sizes, where: str) -> Recipe:
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if found.family != "evo_deit":
        raise CheckpointError(
            f"recipe {found.name} is of family {found.family!r}; {where} is an Evo-DeiT. Give an evo_deit recipe."
        )
    if found.as_deit[0].depth != sizes.depth:
        raise CheckpointError(
            f"recipe {found.name} has {found.as_deit[0].depth} blocks, {where} has {sizes.depth}; give a recipe with "
            "one keep ratio and one tradeoff per block of this checkpoint."
        )
    return found


def _shipped(sizes: Sizes, image_size: int, model: str) -> Recipe | None:
    """The shipped recipe that the training arguments name, or else the one of this structure."""
    shipped = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.family == "evo_deit"]
    fitting = [recipe for recipe in shipped if _same_network(recipe, sizes)]
    # For a resized model the recipe of the new size fits best; it differs in name, baseline and published numbers only.
    exact = [recipe for recipe in fitting if recipe.structure.image_size == image_size]
    named = [recipe for recipe in fitting if recipe.name == model]
    if named and exact and exact[0].evolution == named[0].evolution:
        return exact[0]
    return next(iter(named or exact), None)


def _same_network(recipe: Recipe, sizes: Sizes) -> bool:
    found = recipe.as_deit[0]
    return (found.embed_dim, found.patch_size, found.depth) == (sizes.embed_dim, sizes.patch_size, sizes.depth)


def _heads(sizes: Sizes, base: Recipe | None, num_heads: int | None, where: str) -> int:
    width = sizes.embed_dim
    if num_heads is not None:
        if num_heads < 1 or width % num_heads:
            valid = [str(n) for n in range(1, min(width, 64) + 1) if width % n == 0]
            raise InputError(
                f"--num-heads {num_heads} does not divide the embed dim {width} of {where}; valid: {', '.join(valid)}."
            )
        return num_heads
    if base is not None and base.as_deit[0].embed_dim == width:
        return base.as_deit[0].num_heads
    if width % HEAD_DIM == 0:
        return width // HEAD_DIM
    raise CheckpointError(
        f"{where} has embed dim {width}, which is not a multiple of {HEAD_DIM}, and a checkpoint does not store its "
        "number of heads. Give it with --num-heads, or give a recipe with --recipe."
    )


def fit(base: Recipe, structure: Structure | LevitStructure, derived: str, network: tuple[str, ...]) -> Recipe:
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


def resize_position_embedding(embedding: Tensor, grid: int) -> Tensor:
    """Resample the patch positions of a position embedding as the authors do on loading; the class token's row stays.

    Args:
        embedding: [1, 1 + G G, C] float32.
        grid: New number of patches a side.

    Returns:
        [1, 1 + grid grid, C] float32; bilinear, corners not aligned.
    """
    import torch

    old = round((embedding.shape[1] - 1) ** 0.5)
    patches = embedding[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, (grid, grid), mode="bilinear", align_corners=False)
    return torch.cat((embedding[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)), 1)

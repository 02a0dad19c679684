"""From sizes to a recipe: heads, schedule and name, which a checkpoint does not store."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import CheckpointError, InputError
from ...recipes import Evolution, Recipe, Structure, load_recipe, recipe_names
from ..fitting import fit, headless_note
from .evo_deit_tensors import Sizes

__all__ = ["heads_of", "identify"]

HEAD_DIM = 64  # D of every published model
_PUBLISHED_DEPTH = 12
# Half of the patches from block 4 on, as in every shipped recipe.
_PUBLISHED = Evolution(keep_ratios=(1.0,) * 4 + (0.5,) * 8, tradeoff=(1.0,) * 4 + (0.5,) * 8)


def identify(
    sizes: Sizes,
    image_size: int,
    args: Mapping[str, str],
    recipe: Recipe | None,
    num_heads: int | None,
    where: str,
) -> tuple[Recipe, list[str]]:
    """Return the recipe of a checkpoint, with the structure of its tensors, and notes on what was assumed.

    Args:
        sizes: From the tensors.
        image_size: Pixels per side, after any resize.
        args: Training arguments; ``model`` may name a shipped recipe.
        recipe: What the user gave.
        num_heads: What the user gave.
        where: The checkpoint, for messages.

    Raises:
        CheckpointError: Heads or schedule cannot be told; the message says which option to give.
    """
    base = _given(recipe, sizes, where) if recipe is not None else _shipped(sizes, image_size, args.get("model", ""))
    heads = heads_of(sizes, None if base is None else base.network(Structure), num_heads, where)
    structure = sizes.structure(image_size, heads)
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
    notes = [note, *headless_note(structure)]
    if base is not None and base.network(Structure).embed_dim != sizes.embed_dim:
        notes.append(
            f"recipe {base.name} is for embed dim {base.network(Structure).embed_dim}, the checkpoint has {sizes.embed_dim}: "
            "schedule and transform are the recipe's, the structure is the checkpoint's"
        )
    return result, notes


def _given(recipe: Recipe, sizes: Sizes, where: str) -> Recipe:
    if recipe.family != "evo_deit":
        raise CheckpointError(
            f"recipe {recipe.name} is of family {recipe.family!r}; {where} is an Evo-DeiT. Give an evo_deit recipe."
        )
    if recipe.network(Structure).depth != sizes.depth:
        raise CheckpointError(
            f"recipe {recipe.name} has {recipe.network(Structure).depth} blocks, {where} has {sizes.depth}; give a recipe with "
            "one keep ratio and one tradeoff per block of this checkpoint."
        )
    return recipe


def _shipped(sizes: Sizes, image_size: int, model: str) -> Recipe | None:
    """The shipped recipe that the training arguments name, or else the one of this structure."""
    shipped = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.family == "evo_deit"]
    fitting = [recipe for recipe in shipped if sizes.fits(recipe)]
    # Nothing in the weights speaks for another schedule than the published one.
    fitting.sort(key=lambda recipe: recipe.evolution != _PUBLISHED)
    # For a resized model the recipe of the new size fits best; it differs in name, baseline and published numbers only.
    exact = [recipe for recipe in fitting if recipe.structure.image_size == image_size]
    named = [recipe for recipe in fitting if recipe.name == model]
    if named and exact and exact[0].evolution == named[0].evolution:
        return exact[0]
    return next(iter(named or exact), None)


def heads_of(sizes: Sizes, known: Structure | None, num_heads: int | None, where: str) -> int:
    """Return the attention heads: as given, or of a recipe's structure of the same width, or one for 64 channels.

    Raises:
        InputError: They do not divide the width.
        CheckpointError: They cannot be told; the message says which option to give.
    """
    width = sizes.embed_dim
    if num_heads is not None:
        if num_heads < 1 or width % num_heads:
            valid = [str(n) for n in range(1, min(width, 64) + 1) if width % n == 0]
            raise InputError(
                f"--num-heads {num_heads} does not divide the embed dim {width} of {where}; valid: {', '.join(valid)}."
            )
        return num_heads
    if known is not None and known.embed_dim == width:
        return known.num_heads
    if width % HEAD_DIM == 0:
        return width // HEAD_DIM
    raise CheckpointError(
        f"{where} has embed dim {width}, which is not a multiple of {HEAD_DIM}, and a checkpoint does not store its "
        "number of heads. Give it with --num-heads, or give a recipe with --recipe."
    )

"""EViT checkpoints: a DeiT by its tensors; training arguments, a recipe or the user say where it keeps how many tokens."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping

from ...errors import CheckpointError, RecipeError
from ...recipes import Published, Recipe, Structure, load_recipe, recipe_names
from ..checks import check_tensors
from ..families import Loaded, Source
from ..fitting import fit
from .evit_recipe import Fusion, start
from .evo_deit_recipe import heads_of
from .evo_deit_tensors import Sizes, expected_shapes, measure, resized

__all__ = ["load", "random", "recognise"]

SAID = ("base_keep_rate", "keep_rate", "drop_loc", "fuse_token")  # by the authors' training arguments
FUSE = {"True": True, "1": True, "False": False, "0": False}
PLACES = (3, 6, 9)  # what drop_loc is where it is not said


def recognise(source: Source) -> bool:
    """Return whether a DeiT was trained as an EViT, as its training arguments, the recipe or the user say."""
    if "blocks.0.attn.qkv.weight" not in source.state:
        return False
    if source.recipe is not None:
        return source.recipe.family == "evit"
    return source.method == "evit" or any(name in source.args for name in SAID)


def load(source: Source) -> Loaded:
    """Return recipe and float32 weights of an EViT; see :attr:`.Family.load`."""
    where = source.where
    sizes = measure(source.state, where, "an EViT")
    weights = check_tensors(source.state, _shapes(sizes), f"an EViT of {sizes.depth} blocks", where)
    target, notes = resized(weights, sizes, source.image_size, "bicubic")
    shipped = None if source.recipe is not None else _shipped(sizes, target)
    evolution, said = _evolution(source, sizes.depth)
    base = source.recipe or shipped
    heads = heads_of(sizes, None if base is None else base.network(Structure), source.num_heads, where)
    structure = sizes.structure(target, heads, "cls")
    derived = f"evit_c{sizes.embed_dim}h{heads}_patch{sizes.patch_size}_{target}"
    if base is None:
        return Loaded(Recipe(derived, "evit", structure, evolution), weights, [*said, *notes])
    recipe = fit(base, structure, derived, ("patch_size", "embed_dim", "depth", "num_heads"))
    if recipe.evolution != evolution:
        recipe = dataclasses.replace(recipe, evolution=evolution, published=Published())
    return Loaded(recipe, weights, [*said, *notes])


def random(recipe: Recipe, seed: int) -> Loaded:
    """Return the weights of a DeiT as at the start of training; see :attr:`.Family.random`."""
    from .vanilla import timm_deit

    return Loaded(recipe, dict(timm_deit(recipe.network(Structure), seed).state_dict()), [])


def _shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every parameter of a DeiT, with its shape."""
    c, h = sizes.embed_dim, sizes.hidden
    block = {
        "blocks.{}.norm1": (c,),
        "blocks.{}.attn.qkv": (3 * c, c),
        "blocks.{}.attn.proj": (c, c),
        "blocks.{}.norm2": (c,),
        "blocks.{}.mlp.fc1": (h, c),
        "blocks.{}.mlp.fc2": (c, h),
    }
    return expected_shapes(sizes, block)


def _shipped(sizes: Sizes, image_size: int) -> Recipe | None:
    """The shipped recipe of this network, for transform, tolerances and name."""
    found = (one for one in map(load_recipe, recipe_names()) if one.family == "evit" and sizes.fits(one))
    return next((one for one in found if one.structure.image_size == image_size), None)


def _evolution(source: Source, depth: int) -> tuple[Fusion, list[str]]:
    """Where it keeps how many tokens, and a note on who says so.

    Raises:
        CheckpointError: No one does.
        RecipeError: What is said is impossible.
    """
    if source.recipe is not None:
        evolution = source.recipe.evolution
        assert isinstance(evolution, Fusion)
        if len(evolution.keep_ratios) != depth:
            raise CheckpointError(
                f"recipe {source.recipe.name} has {len(evolution.keep_ratios)} blocks, {source.where} has {depth}; give a recipe "
                "with one keep ratio per block of this checkpoint."
            )
        return evolution, [f"keep ratios ({_said(evolution)}) come from recipe {source.recipe.name}"]
    try:
        told = _told(source.args, depth, source.where)
    except RecipeError as error:
        raise CheckpointError(
            f"{source.where}: its training arguments do not fit it: {error} Give --recipe FILE."
        ) from None
    if told is not None:
        where = (
            "" if "drop_loc" in source.args or "keep_rate" in source.args else ", the blocks being the published ones"
        )
        return told, [f"keep ratios ({_said(told)}) come from the training arguments{where}"]
    if source.rates.keep is None:
        places = ", ".join(map(str, start(depth).places))
        raise CheckpointError(
            f"{source.where} is a DeiT given as an EViT, and neither its training arguments nor a recipe say how many tokens it "
            f"keeps. Give --keep 0.7 (at blocks {places}, with a fused token), or what it was trained with as --recipe FILE."
        )
    return start(depth).with_keep(source.rates.keep), [
        "what is left out is fused into one token, as no one says otherwise"
    ]


def _told(args: Mapping[str, str], depth: int, where: str) -> Fusion | None:
    """What the authors' training arguments say; None if they do not."""
    rates = _numbers(args, "keep_rate", where)
    if (said := args.get("fuse_token", "False")) not in FUSE:
        raise _unclear(where, "fuse_token", said, "True or False")
    fuse = FUSE[said]
    if len(rates) > 1:
        if len(rates) != depth:
            raise RecipeError(f"keep_rate has {len(rates)} values for {depth} blocks.")
        return Fusion(tuple(map(float, rates)), tuple(i for i, rate in enumerate(rates) if rate < 1), fuse)
    rates = _numbers(args, "base_keep_rate", where) or rates
    if not rates:
        return None
    if len(rates) > 1:
        raise _unclear(where, "base_keep_rate", args["base_keep_rate"], "one number such as 0.7")
    places = _numbers(args, "drop_loc", where)
    if "drop_loc" not in args:
        places = PLACES
    elif not places or not all(isinstance(place, int) for place in places):
        raise _unclear(where, "drop_loc", args["drop_loc"], "block numbers such as (3, 6, 9)")
    return Fusion.at(depth, tuple(sorted({int(place) for place in places})), float(rates[0]), fuse)


def _numbers(args: Mapping[str, str], name: str, where: str) -> tuple[float, ...]:
    """The numbers of an argument such as ``(3, 6, 9)`` or ``0.7``; none where it is not there."""
    text = args.get(name, "()")
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = text
    values = found if isinstance(found, (list, tuple)) else (found,)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise _unclear(where, name, text, "numbers such as 0.7 or (3, 6, 9)")
    return tuple(values)


def _unclear(where: str, name: str, text: str, valid: str) -> CheckpointError:
    return CheckpointError(f"{where}: the training argument {name} is {text[:80]!r}, not {valid}. Give --recipe FILE.")


def _said(fusion: Fusion) -> str:
    if not fusion.left_out:
        return "1 everywhere"
    where = ", ".join(map(str, fusion.places))
    ratios = ", ".join(
        f"{ratio:g}"
        for ratio in (fusion.stage_ratios if len(set(fusion.stage_ratios)) > 1 else fusion.stage_ratios[:1])
    )
    return f"{ratios} at blocks {where}, the others {'fused' if fusion.fuse else 'dropped'}"

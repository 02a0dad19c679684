"""Evo-LeViT checkpoints: structure from the tensors, recipe from the structure, every tensor checked."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

from ...errors import CheckpointError, InputError
from ...recipes import Recipe, load_recipe, recipe_names
from ...recipes.levit import LevitEvolution, LevitStructure
from ..checks import check_tensors, shape_of
from ..families import Loaded, Source
from ..fitting import check_image_size, fit, resize_position_embedding
from .checkpoint_names import one_copy

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load", "near_miss", "random", "recognise"]

_MODEL = "an Evo-LeViT"


def recognise(source: Source) -> bool:
    """Return whether these are the tensors of an Evo-LeViT (and not of a vanilla LeViT, which has no class token)."""
    return any(key == "poss" or key.startswith("stage_blocks.") or "learn_tradeoff" in key for key in source.state)


def near_miss(source: Source) -> str | None:
    """Name a vanilla LeViT, and what to do about it."""
    if not any("attention_biases" in key for key in source.state):
        return None
    return (
        "is a vanilla LeViT (it has `attention_biases` and no class token); it selects no tokens. For comparison this tool "
        "exports it with `evovit export --baseline levit_128s_224`."
    )


def load(source: Source) -> Loaded:
    """Return recipe and float32 weights of an Evo-LeViT; see :attr:`.Family.load`. The heads given are those of stage 1."""
    where, image_size = source.where, source.image_size
    state, full_blocks = one_copy(source.state, where)
    base = None if source.recipe is None else _given(source.recipe, where)
    structure, notes = _measure(state, base, source.num_heads, where)
    weights = check_tensors(state, expected_shapes(structure), _MODEL, where)
    for key, tensor in weights.items():
        if key.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(f"{where}: `{key}` has negative values, and it is a variance; the file is damaged.")
    own_size = structure.image_size
    if image_size is not None and image_size != own_size:
        check_image_size(image_size, structure.patch_size)
        resized = dataclasses.replace(structure, image_size=image_size)
        for key, stage in _positions(structure).items():
            old, new = structure.grids[stage], resized.grids[stage]
            weights[key] = resize_position_embedding(weights[key], new)
            notes.append(
                f"position embedding {key} resized from {old} x {old} to {new} x {new} patches (bilinear) for images of "
                f"{image_size} pixels; the model was trained at {own_size}"
            )
        structure = resized
    fitted, assumed = _identify(structure, base, full_blocks, where)
    return Loaded(fitted, weights, [*assumed, *notes])


def _parts(recipe: Recipe) -> tuple[LevitStructure, LevitEvolution]:
    return recipe.parts(LevitStructure, LevitEvolution)


def _given(recipe: Recipe, where: str) -> Recipe:
    if recipe.family != "evo_levit":
        raise CheckpointError(
            f"recipe {recipe.name} is of family {recipe.family!r}; {where} is an Evo-LeViT. Give an evo_levit recipe."
        )
    return recipe


def _measure(
    state: dict[str, Tensor], base: Recipe | None, num_heads: int | None, where: str
) -> tuple[LevitStructure, list[str]]:
    """Structure from the tensors; the key dim, which they do not tell, from heads, recipe or the published rule."""
    kinds = _entries(state, where)
    blocks = [i for i, kind in enumerate(kinds) if kind == "block"]
    between = [i for i, kind in enumerate(kinds) if kind == "subsample"]
    bounds = [-1, *between, len(kinds)]
    depths = tuple(sum(a < i < b for i in blocks) for a, b in zip(bounds, bounds[1:]))
    first = [next(i for i in blocks if i > a) for a in bounds[:-1]]  # block of each stage
    dims, queries = [], []  # channels, and rows of all queries
    for i in first:
        rows, dim = shape_of(state, f"blocks.{i}.m1.m.qkv.c.weight", (None, None), _MODEL, where)
        dims.append(dim)
        queries.append(rows // 4)  # a head has D of q, D of k, 2 D of v
    hidden = shape_of(state, f"blocks.{first[0]}.m2.m.0.c.weight", (None, dims[0]), _MODEL, where)[0]
    tokens = shape_of(state, "poss", (1, None, dims[0]), _MODEL, where)[1]
    grid = math.isqrt(max(tokens - 1, 0))
    if grid < 1 or grid * grid != tokens - 1:
        raise CheckpointError(
            f"{where}: `poss` has {tokens} tokens; expected one class token and a square grid of patches, such as "
            f"{(grid or 1) ** 2 + 1} or {(grid + 1) ** 2 + 1}."
        )
    key_dim, notes = _key_dim(dims, queries, depths, base, num_heads, where)
    structure = LevitStructure(
        image_size=16 * grid,
        embed_dims=tuple(dims),
        key_dim=key_dim,
        num_heads=tuple(rows // key_dim for rows in queries),
        depths=depths,
        mlp_ratio=hidden / dims[0],
        num_classes=shape_of(state, "head.l.weight", (None, dims[-1]), _MODEL, where)[0],
        distilled="head_dist.l.weight" in state,
    )
    return structure, notes


def _entries(state: dict[str, Tensor], where: str) -> list[str]:
    """What each entry of ``blocks`` is: block, subsample, or the mlp after a subsample."""
    marks = {"m1.m.qkv.c.weight": "block", "kv.c.weight": "subsample", "m.0.c.weight": "mlp"}
    found: dict[int, str] = {}
    for key in state:
        match = re.fullmatch(r"blocks\.(\d{1,4})\.(.+)", key)
        if match and match[2] in marks:
            found[int(match[1])] = marks[match[2]]
    kinds = [found.get(i, "missing") for i in range(max(found, default=0) + 1)]
    text = " ".join(kinds)
    if not re.fullmatch(r"block( block)*( subsample mlp block( block)*)*", text):
        at = next((i for i, kind in enumerate(kinds) if kind == "missing"), None)
        what = f"block {at} is missing" if at is not None else f"the blocks are {text}"
        raise CheckpointError(
            f"{where}: {what}; expected stages of blocks with a subsampling attention and its MLP between them. Save the whole "
            "state dict."
        )
    return kinds


def _key_dim(
    dims: list[int], queries: list[int], depths: tuple[int, ...], base: Recipe | None, num_heads: int | None, where: str
) -> tuple[int, list[str]]:
    fits = [d for d in range(1, min(queries) + 1) if not any(n % d for n in (*queries, *dims[:-1]))]
    if num_heads is not None:
        if num_heads < 1 or queries[0] % num_heads or queries[0] // num_heads not in fits:
            valid = ", ".join(str(queries[0] // d) for d in reversed(fits))
            raise InputError(
                f"--num-heads {num_heads} does not fit the {queries[0]} query channels of stage 1 in {where}; valid: {valid}."
            )
        return queries[0] // num_heads, []
    for recipe in [base] if base is not None else map(load_recipe, recipe_names()):
        if recipe.family == "evo_levit":
            known = _parts(recipe)[0]
            rows = [heads * known.key_dim for heads in known.num_heads]
            if (list(known.embed_dims), rows, known.depths) == (dims, queries, depths):
                return known.key_dim, []
    published = 16 if dims[0] <= 128 else 32
    if published in fits:
        note = (
            f"{published} channels a head's query is assumed, as in the published models of this width, since a checkpoint "
            "does not store it; if it was trained with others, give --num-heads (of stage 1) or its recipe"
        )
        return published, [note]
    raise CheckpointError(
        f"{where} has {', '.join(map(str, queries))} query channels in its stages, which are not multiples of {published}, and a "
        "checkpoint does not store its number of heads. Give that of stage 1 with --num-heads, or give a recipe with --recipe."
    )


def _identify(
    structure: LevitStructure, base: Recipe | None, full_blocks: int | None, where: str
) -> tuple[Recipe, list[str]]:
    """The recipe for a structure, and what was assumed."""
    dims = "_".join(map(str, structure.embed_dims))
    derived = f"evo_levit_c{dims}_{structure.image_size}"
    network = ("embed_dims", "key_dim", "num_heads", "depths")
    given = base is not None
    if base is None:
        levits = [r for r in map(load_recipe, recipe_names()) if r.family == "evo_levit"]
        same = [r for r in levits if all(getattr(r.structure, n) == getattr(structure, n) for n in network)]
        # Nothing in the weights speaks for another schedule than the published one.
        same.sort(key=lambda r: (set(r.evolution.keep_ratios), _parts(r)[1].full_blocks) != ({0.5}, 2))
        base = next((r for r in same if r.structure.image_size == structure.image_size), next(iter(same), None))
    if base is None or (not given and full_blocks not in (None, _parts(base)[1].full_blocks)):
        full = 2 if full_blocks is None else full_blocks
        if not 1 <= full <= structure.depths[0]:
            raise CheckpointError(
                f"{where} has {structure.depths[0]} blocks in stage 1, of which {full} would run on all tokens; give a recipe "
                "with --recipe (copy a shipped one, such as evo_levit_128s_224.toml)."
            )
        groups = len(structure.depths) - (full == structure.depths[0])
        evolution, source = LevitEvolution((0.5,) * groups, full), "the published Evo-LeViT schedule"
        result = Recipe(derived, "evo_levit", structure, evolution)
    else:
        own = _parts(base)[1].full_blocks
        if full_blocks not in (None, own):
            raise CheckpointError(
                f"recipe {base.name} runs the first {own} blocks on all tokens, {where} was trained with {full_blocks}; set "
                f"evolution.full_blocks = {full_blocks} in the recipe, or leave --recipe out."
            )
        if len(_parts(base)[0].depths) != len(structure.depths) or own > structure.depths[0]:
            raise CheckpointError(
                f"recipe {base.name} is for stages of {_parts(base)[0].depths} blocks, {where} has {structure.depths}."
            )
        result, source = fit(base, structure, derived, network), f"recipe {base.name}"
    ratios = sorted(set(result.evolution.keep_ratios), reverse=True)
    note = (
        f"keep ratios ({', '.join(f'{r:g}' for r in ratios)}) come from {source}, since a checkpoint does not store them; if "
        "it was trained with others, give --keep or a recipe"
    )
    return result, [note]


def _positions(structure: LevitStructure) -> dict[str, int]:
    """Name of every position embedding -> the stage whose grid it has."""
    between = range(len(structure.depths) - 1)
    return {"poss": 0, **{f"blocks.{sum(structure.depths[: i + 1]) + 2 * i}.poss": i for i in between}}


def expected_shapes(structure: LevitStructure) -> dict[str, tuple[int, ...]]:
    """Return every tensor of an Evo-LeViT for inference, in the authors' names, with its shape."""
    dims, key_dim = structure.embed_dims, structure.key_dim
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dims[0]),
        "poss": (1, 1 + structure.grids[0] ** 2, dims[0]),
    }

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}.bn.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")})

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.c.weight"] = weight
        norm(name, weight[0])

    def mlp(name: str, dim: int) -> None:
        hidden = round(dim * structure.mlp_ratio)
        layer(f"{name}.0", hidden, dim)
        layer(f"{name}.2", dim, hidden)

    widths = (3, dims[0] // 8, dims[0] // 4, dims[0] // 2, dims[0])
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        layer(f"patch_embed.{2 * i}", outputs, inputs, 3, 3)
    number = 0
    for stage, (dim, heads, depth) in enumerate(zip(dims, structure.num_heads, structure.depths)):
        for i in range(number, number + depth):
            shapes[f"blocks.{i}.m1.m.learn_tradeoff"] = (1,)
            layer(f"blocks.{i}.m1.m.qkv", 4 * heads * key_dim, dim)
            layer(f"blocks.{i}.m1.m.proj.1", dim, 2 * heads * key_dim)
            mlp(f"blocks.{i}.m2.m", dim)
        number += depth
        if stage + 1 < len(dims):
            name, out = f"blocks.{number}", dims[stage + 1]
            shapes[f"{name}.learn_tradeoff"] = (1,)
            shapes[f"{name}.poss"] = (1, 1 + structure.grids[stage] ** 2, dim)
            layer(f"{name}.kv", 5 * dim, dim)
            layer(f"{name}.q.1", dim, dim)
            layer(f"{name}.proj.1", out, 4 * dim)
            mlp(f"blocks.{number + 1}.m", out)
            number += 2
    for head in ("head", "head_dist")[: 1 + structure.distilled]:
        norm(head, dims[-1])
        shapes[f"{head}.l.weight"] = (structure.num_classes, dims[-1])
        shapes[f"{head}.l.bias"] = (structure.num_classes,)
    return shapes


def random(recipe: Recipe, seed: int) -> Loaded:
    """Return weights that keep the size of their inputs, since BatchNorm's statistics are not those of any data.

    The authors begin with residual branches that BatchNorm multiplies by zero, which would make a network of nothing.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for key, shape in expected_shapes(_parts(recipe)[0]).items():
        if len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            deviation = 0.02 if key.endswith(("poss", "cls_token")) else fan_in**-0.5
            state[key] = torch.empty(shape).normal_(0, deviation, generator=generator)
        else:
            state[key] = torch.full(shape, 1.0 if key.endswith(("bn.weight", "running_var")) else 0.0)
    return Loaded(recipe, state, [])

"""Plain ViTs of timm as a source: a recipe from a name, and weights in timm's names that are checked against timm itself.

Nothing is left out in such a model; a method is put on top (:attr:`.Family.method`), by the schedule that its family starts with,
or by that of a recipe.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointError, InputError, RecipeError
from ...recipes import Evolution, Recipe, Structure, Transform, load_recipe
from ...recipes.forms import FORMS, form_of
from ..checks import check_tensors, shape_of
from ..families import METHOD, Family, Loaded, Source, by_method, evolves, family_of
from ..fitting import check_image_size, headless_note

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["accuracy_note", "load_timm", "method_of", "random_timm", "scaled_evolution", "timm_recipe"]

POOLS = ("token", "avg")
KEEP = 0.5  # the published keep ratio
# Between timm's module and ours at keep ratio 1, FP32, relative to the largest output: sums in another order, no more.
TOLERANCE = 1e-4


def timm_recipe(
    name: str,
    *,
    recipe: str | Recipe | None = None,
    image_size: int | None = None,
    pool: str | None = None,
    method: str | None = None,
) -> Recipe:
    """Return the recipe of a timm model: its structure and transform, and a method on top.

    Args:
        name: In timm, e.g. ``vit_small_patch16_224`` or ``timm/vit_small_patch16_224.augreg_in1k``; the tag decides transform and
            classes, without one it is timm's first.
        recipe: Whose schedule to use. Of one for a timm ViT structure, transform and tolerances count too.
        image_size: Pixels per side, in place of the model's own.
        pool: ``token`` or ``avg``, in place of the model's own.
        method: Such as ``evo``; None is that of the recipe, or ``evo``.

    Raises:
        InputError: An unknown name, or a model that cannot be computed exactly.
        RecipeError: A recipe that does not fit the model.
    """
    from .timm_names import create, resolve_name
    from .timm_vit import structure_of, timm_options

    name, base = resolve_name(name), load_recipe(recipe) if isinstance(recipe, str) else recipe
    family = method_of(base, method)
    _check_base(base, family)
    structure_of(create(name), name)  # before options that other models would not understand
    options = timm_options(base.network(Structure)) if base is not None and _says_all(base) else {}
    options |= {} if image_size is None else {"img_size": image_size}
    if pool is not None:
        options |= {"global_pool": _pool(pool), "fc_norm": None}
    return _recipe(create(name, None, **options), name, base, family, image_size)


def method_of(recipe: Recipe | None, method: str | None) -> Family:
    """Return the family that goes on a ViT of timm: that of a recipe for one, else the method's.

    Raises:
        InputError: No such method, or another one than the recipe's.
    """
    if recipe is None or not _says_all(recipe):
        return by_method(method or METHOD)
    family = family_of(recipe)
    if method not in (None, family.method):
        raise InputError(
            f"recipe {recipe.name} is of method {family.method}, not {method}. Leave --method or --recipe out."
        )
    return family


def random_timm(recipe: Recipe, seed: int) -> Loaded:
    """Return seeded random weights of a recipe for a timm ViT; arguments and errors as for ``random_checkpoint``."""
    from .timm_vit import timm_vit

    model = timm_vit(recipe, seed)
    _check(model, recipe)
    state = {key: tensor.detach() for key, tensor in model.state_dict().items()}
    return Loaded(recipe, state, _notes(recipe))


def load_timm(source: Source) -> Loaded:
    """Return recipe and float32 weights of a timm model; classes, image size and where the norm stands are those of the weights.

    Args:
        source: Tensors in timm's names, or those of the original DeiT-III and DINOv2, which timm converts; ``timm`` is the name,
            or else the recipe says it; so it is with ``method``.

    Raises:
        CheckpointError: Tensors are missing, unexpected, misshapen or not finite.
        InputError, RecipeError: As for :func:`timm_recipe`.
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    from .timm_names import create, resolve_name
    from .timm_vit import structure_of, timm_name

    state, where, image_size, pool = source.state, source.where, source.image_size, source.pool
    base, family = source.recipe, method_of(source.recipe, source.method)
    _check_base(base, family)
    name = timm_name(base) if source.timm is None and base is not None else resolve_name(source.timm or "")
    if source.num_heads is not None:
        raise InputError(f"--num-heads is for Evo-ViT checkpoints; {name} says it by its name. Leave it out.")
    own = base.network(Structure) if base is not None and _says_all(base) else None
    wanted = pool or (None if own is None else "token" if own.classified else "avg")
    plain: Any = create(name)
    structure_of(plain, name)
    options = _options(state, plain, wanted, where)
    trained = _trained_size(state, plain, name, where)
    target = image_size or (trained if own is None else own.image_size)
    check_image_size(target, plain.patch_embed.patch_size[0])
    model: Any = create(name, None, **options, img_size=target)
    found = _recipe(model, name, base, family, image_size)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    fix = "Give the weights of that very model, in timm's names: torch.save(model.state_dict(), 'weights.pth')"
    converted = checkpoint_filter_fn(dict(state), model, adapt_layer_scale=True)
    weights = check_tensors(converted, shapes, f"timm's {name}", where, fix)
    model.load_state_dict(weights, assign=True)
    _check(model, found)
    notes = _notes(found)
    if target != trained:
        p = found.structure.patch_size
        notes.append(
            f"position embedding resized from {trained // p} x {trained // p} to {target // p} x {target // p} patches, as timm "
            f"does, for images of {target} pixels; the weights are for {trained}"
        )
    return Loaded(found, weights, notes)


def accuracy_note(recipe: Recipe) -> str | None:
    """Say what a user has to know of a model that was not trained to leave patches out; None if it keeps all."""
    if not evolves(recipe) or not family_of(recipe).method or not recipe.evolution.left_out:
        return None
    if not recipe.structure.head:
        return (
            f"{recipe.baseline} was not trained to leave patches out: what {recipe.evolution.left_out} costs its features is "
            "yours to check, against those of the original (see docs/embeddings.md)"
        )
    page = "timm" if family_of(recipe).method == METHOD else "methods"
    return (
        f"{recipe.baseline} was not trained to leave patches out: what {recipe.evolution.left_out} costs in accuracy is yours "
        f"to check, with `evovit eval` on your images; `evovit sweep` finds the rate (see docs/{page}.md)"
    )


def scaled_evolution(depth: int) -> Evolution:
    """Return the published schedule of Evo-ViT, 12 blocks with stages at 4 and 8, for another depth."""
    starts = tuple(sorted({round(depth / 3), round(2 * depth / 3)} & set(range(1, depth))))
    first = starts[0]
    return Evolution(
        keep_ratios=(1.0,) * first + (KEEP,) * (depth - first),
        tradeoff=(1.0,) * first + (0.5,) * (depth - first),
        stage_starts=starts,
    )


def _check_base(recipe: Recipe | None, family: Family) -> None:
    """Raise RecipeError for a recipe that says nothing about this method on a timm ViT."""
    if recipe is None or (_says_all(recipe) and family_of(recipe) is family):
        return
    if form_of(recipe.family) != family.form:
        valid = [name for name, form in FORMS.items() if form == family.form and evolves(name)]
        raise RecipeError(
            f"recipe {recipe.name} is of family {recipe.family!r}; {family.method} on a timm ViT takes one of "
            f"{' or '.join(valid)}."
        )


def _says_all(recipe: Recipe) -> bool:
    """Whether a recipe is of a timm ViT, so that structure and transform are its own; else only its schedule counts."""
    return bool(family_of(recipe).method)


def _pool(pool: str) -> str:
    if pool not in POOLS:
        raise InputError(f"pool {pool!r} is unknown; valid: {', '.join(POOLS)}.")
    return pool


def _recipe(model: nn.Module, name: str, base: Recipe | None, family: Family, image_size: int | None) -> Recipe:
    """The recipe of a timm module, with the evolution of ``base``, or what the family starts with."""
    from .timm_vit import structure_of

    if image_size is not None:
        patch: Any = model.patch_embed
        check_image_size(image_size, patch.patch_size[0])
    structure = structure_of(model, name)
    own = f"{family.method}_{name.replace('.', '_')}"
    if base is None:
        assert family.start is not None, "every method has one"
        return Recipe(own, family.name, structure, family.start(structure), _transform(model, name), name)
    old = base.network(Structure)
    if old.depth != structure.depth:
        raise RecipeError(f"recipe {base.name} is for {old.depth} blocks, and {name} has {structure.depth}.")
    if not _says_all(base):
        transform = _transform(model, name)
        return Recipe(own, family.name, structure, base.evolution, transform, name, tolerances=base.tolerances)
    s = structure  # what may differ: images, classes and pooling, which options and weights decide
    same = dataclasses.replace(old, image_size=s.image_size, num_classes=s.num_classes, head=s.head, pool=s.pool)
    if same != structure:
        raise RecipeError(f"the structure of recipe {base.name} is not that of timm's {name}: {structure}.")
    return dataclasses.replace(base, structure=structure)


def _transform(model: nn.Module, name: str) -> Transform:
    """The eval transform that timm has for these weights."""
    import timm.data

    data: Any = timm.data
    config = data.resolve_model_data_config(model)
    if config["crop_mode"] != "center" or config["interpolation"] not in ("bicubic", "bilinear"):
        raise InputError(
            f"timm prepares images for {name} with crop_mode {config['crop_mode']!r}, {config['interpolation']}; this tool crops "
            "the centre, bicubic or bilinear. Other weights of the model may do too (give the name with another tag), or write a "
            "recipe of its own (family evo_vit or the like) with a [transform] and give it with --recipe."
        )
    return Transform(1 / config["crop_pct"], config["interpolation"], tuple(config["mean"]), tuple(config["std"]))


def _options(state: dict[str, Tensor], plain: Any, pool: str | None, where: str) -> dict[str, Any]:
    """Classes and pooling of the weights."""
    options: dict[str, Any] = {}
    if "head.weight" in state and state["head.weight"].dim() == 2:
        options["num_classes"] = state["head.weight"].shape[0]
    elif not any(key.startswith(("head.", "head_dist.")) for key in state):
        options["num_classes"] = 0
    if "fc_norm.weight" in state:
        if pool == "token":
            raise InputError(f"{where} has `fc_norm.weight`: it classifies the mean of the patches. Leave --pool out.")
        options |= {"global_pool": "avg", "fc_norm": True}
    elif pool == "avg":
        options |= {"global_pool": "avg", "fc_norm": False}
    elif pool is not None:
        options["global_pool"] = _pool(pool)
    return options


def _trained_size(state: dict[str, Tensor], plain: Any, name: str, where: str) -> int:
    """Image size that the position embedding is for, after a check that patches are those of the model."""
    model, patch = f"timm's {name}", int(plain.patch_embed.patch_size[0])
    width = shape_of(state, "cls_token", (1, 1, None), model, where)[2]
    stem = state.get("patch_embed.proj.weight")
    if stem is None or stem.dim() != 2:  # timm reshapes the matrix of before patches were cut by a convolution
        shape_of(state, "patch_embed.proj.weight", (width, 3, patch, patch), model, where)
    if plain.pos_embed is None:
        return int(plain.patch_embed.img_size[0])
    tokens = shape_of(state, "pos_embed", (1, None, width), model, where)[1]
    declared = 0 if plain.no_embed_class else plain.num_prefix_tokens
    for prefix in (declared, 1):  # the original DINOv2 with registers has a position for the class token
        grid = math.isqrt(max(tokens - prefix, 0))
        if grid and grid * grid == tokens - prefix:
            return grid * patch
    raise CheckpointError(
        f"{where}: `pos_embed` has {tokens} tokens; expected {declared} and a square grid of patches for timm's {name}."
    )


def _check(model: nn.Module, recipe: Recipe) -> None:
    """Hold our module at keep ratio 1 against timm's own: what no one thought of shows here.

    Raises:
        InputError: They differ.
    """
    import torch

    from .timm_vit import SUPPORTED, rename
    from .vit import VisionTransformer

    structure = recipe.network(Structure)
    outputs = ("logits" if structure.head else "embedding", "patch_tokens")
    ours = VisionTransformer(structure, Evolution.whole(structure.depth), outputs=outputs, trim=False).eval()
    ours.load_state_dict(rename(model.state_dict(), structure))
    timms: Any = model.eval()
    size = structure.image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = timms.forward_features(images)
        both = ((timms.forward_head(tokens), tokens[:, structure.prefix_tokens :]), ours(images))
    name = recipe.baseline or recipe.name
    for expected, got in zip(*both):
        if not bool(torch.isfinite(expected).all()):
            raise CheckpointError(f"timm's {name} with these weights gives outputs that are not finite.")
        error, scale = float((expected - got).abs().max()), max(1.0, float(expected.abs().max()))
        if not error <= TOLERANCE * scale:
            raise InputError(
                f"timm's {name} cannot be exported exactly: its outputs at keep ratio 1 differ by {error:.3g}. {SUPPORTED}."
            )


def _notes(recipe: Recipe) -> list[str]:
    return headless_note(recipe.structure)

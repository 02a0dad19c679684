"""Evo-DeiT checkpoints: recognised by the authors' names, measured, checked, and given a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...recipes import Recipe, Structure
from ..families import Loaded, Source
from .evo_deit_recipe import identify
from .evo_deit_tensors import Sizes, expected_shapes, measure, resized, to_float32

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load", "near_miss", "random", "recognise"]

_DEIT = {192: "deit_tiny_patch16_224", 768: "deit_base_patch16_224"}


def recognise(source: Source) -> bool:
    """Return whether q and k are one projection beside the blocks, as in the authors' model."""
    return any(key.startswith(("qks.", "projs.")) for key in source.state)


def near_miss(source: Source) -> str | None:
    """Name a vanilla DeiT or ViT, and what to do with it."""
    weight = source.state.get("blocks.0.attn.qkv.weight")
    if weight is None:
        return None
    name = _DEIT.get(weight.shape[-1] if weight.dim() == 2 else 0, "deit_small_patch16_224")
    method = f" --method {source.method}" if source.method else ""
    return (
        "is a vanilla DeiT/ViT (it has `blocks.0.attn.qkv.weight`, not `qks.0.qk.weight`); it selects no tokens. To put token "
        f"evolution on top of it: `evovit export --from-timm {name} --weights {source.where}{method}`, with its name in timm. "
        "If it was trained as an EViT: `--method evit --keep RATES`. For comparison this tool exports the DeiT of a size with "
        f"`evovit export --baseline {name}`."
    )


def load(source: Source) -> Loaded:
    """Return recipe and float32 weights of an Evo-DeiT; see :attr:`.Family.load`."""
    state, where = source.state, source.where
    sizes = measure(state, where)
    weights, notes = to_float32(state, sizes, where)
    target, moved = resized(weights, sizes, source.image_size, "bilinear")
    fitted, assumed = identify(sizes, target, source.args, source.recipe, source.num_heads, where)
    return Loaded(fitted, weights, [*assumed, *notes, *moved])


def random(recipe: Recipe, seed: int) -> Loaded:
    """Return weights as at the start of the authors' training; see :attr:`.Family.random`."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    structure = recipe.network(Structure)
    sizes = Sizes(
        embed_dim=structure.embed_dim,
        depth=structure.depth,
        patch_size=structure.patch_size,
        grid=structure.image_size // structure.patch_size,
        hidden=round(structure.embed_dim * structure.mlp_ratio),
        num_classes=structure.num_classes if structure.head else 0,
    )
    bound = (3 * structure.patch_size**2) ** -0.5  # torch's default for a convolution: 1 / sqrt(fan in)
    state: dict[str, Tensor] = {}
    for key, shape in expected_shapes(sizes).items():
        tensor = torch.empty(shape)
        if key.startswith("patch_embed."):
            tensor.uniform_(-bound, bound, generator=generator)
        elif len(shape) > 1:
            # A normal of deviation 0.02 truncated at 2, which is a hundred deviations out: no sample gets there.
            tensor.normal_(0, 0.02, generator=generator)
        else:
            tensor.fill_(1.0 if "norm" in key and key.endswith(".weight") else 0.0)
        state[key] = tensor
    return Loaded(recipe, state, [])

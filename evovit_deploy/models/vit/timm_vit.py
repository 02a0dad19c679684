"""timm's `VisionTransformer`: what of it can be computed exactly by `vit.py`, and its parameters under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError, RecipeError
from ...recipes import Recipe
from ...recipes.vit import Activation, Pool, Structure
from ..families import evolves
from .timm_names import create, resolve_name

__all__ = ["SUPPORTED", "rename", "structure_of", "timm_name", "timm_options", "timm_vit"]

SUPPORTED = (
    "Supported are timm's plain ViTs with a class token: DeiT, also distilled, DeiT-III, AugReg and other `vit_*_patch*`, CLIP "
    "image encoders, DINOv2 with and without registers; pooling by class token or mean"
)


def timm_name(recipe: Recipe) -> str:
    """Return the name in timm of a recipe for a ViT of timm, evolved or ``vit``.

    Raises:
        RecipeError: An evolved one that does not say it.
        InputError: A name that timm does not know.
    """
    name = recipe.baseline if evolves(recipe) else recipe.name
    if not name:
        raise RecipeError(
            f'recipe {recipe.name} has no `baseline`: give the name in timm, as in baseline = "vit_small_patch16_224".'
        )
    return resolve_name(name)


def timm_options(structure: Structure) -> dict[str, Any]:
    """Return what has to be given beside the name for timm to make a model of this structure."""
    options: dict[str, Any] = {"img_size": structure.image_size}
    options["num_classes"] = structure.num_classes if structure.head else 0
    if structure.pool in ("patches", "normed_patches"):
        options.update(global_pool="avg", fc_norm=structure.pool == "patches")
    elif structure.pool == "cls":  # a distilled model takes no other pooling anyway
        options["global_pool"] = "token"
    return options


def timm_vit(recipe: Recipe, seed: int = 0) -> nn.Module:
    """Return timm's module of a recipe for a ViT of timm, with seeded random weights.

    Raises:
        RecipeError: The recipe's structure is not that of the model it names.
    """
    name, structure = timm_name(recipe), recipe.network(Structure)
    model = create(name, seed, **timm_options(structure))
    if structure_of(model, name) != structure:
        raise RecipeError(
            f"the structure of recipe {recipe.name} is not that of timm's {name}, {structure_of(model, name)}."
        )
    return model


def structure_of(model: nn.Module, name: str) -> Structure:
    """Return everything that ``vit.py`` has to know of a timm model.

    Args:
        model: From timm, with or without values.
        name: For messages.

    Raises:
        InputError: It computes something that ``vit.py`` does not; the message says what.
    """
    from timm.layers.layer_scale import LayerScale
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import Block, VisionTransformer

    m: Any = model

    def need(condition: bool, what: str) -> None:
        if not condition:
            raise InputError(f"timm's {name} cannot be exported exactly: {what}. {SUPPORTED}.")

    need(type(m) in (VisionTransformer, VisionTransformerDistilled), f"it is a {type(m).__name__}")
    need(m.has_class_token, "it has no class token, whose attention chooses the patches")
    stem = m.patch_embed
    need(type(stem) is PatchEmbed, f"its stem is a {type(stem).__name__}")
    # dynamic_img_size is nothing at the model's own size, which is the one that is exported.
    need(not stem.dynamic_img_pad, "it pads its images (dynamic_img_pad)")
    need(isinstance(stem.norm, nn.Identity), "it norms its patch embedding")
    need(stem.proj.weight.shape[1] == 3, f"its images have {stem.proj.weight.shape[1]} channels, not 3")
    need(len({*stem.patch_size}) == 1 and len({*stem.img_size}) == 1, "its images or patches are not square")
    need(len(m.blocks) > 1, "it has one block only")
    eps: set[float] = set()
    kinds: set[str] = set()

    def norm(layer: Any) -> None:
        plain = isinstance(layer, nn.LayerNorm) and layer.weight is not None and layer.bias is not None
        need(plain, f"it norms with {type(layer).__name__}, not LayerNorm with weight and bias")
        eps.add(layer.eps)

    for number, block in enumerate(m.blocks):
        where = f"its block {number}"
        need(type(block) is Block, f"{where} is a {type(block).__name__}")
        norm(block.norm1)
        norm(block.norm2)
        need(
            all(type(s) in (nn.Identity, LayerScale) for s in (block.ls1, block.ls2)),
            f"{where} has an unknown LayerScale",
        )
        _attention(block.attn, stem.proj.weight.shape[0], where, need)
        kinds.add(_activation(block.mlp, where, need))
    if pre_norm := not isinstance(m.norm_pre, nn.Identity):
        norm(m.norm_pre)
    before, after = (not isinstance(layer, nn.Identity) for layer in (m.norm, m.fc_norm))
    need(before != after, "it has no LayerNorm, or two, before its head")
    norm(m.norm if before else m.fc_norm)
    need(len(eps) == 1, "its LayerNorms differ in epsilon")
    need(len(kinds) == 1, "its MLPs differ")
    need(m.attn_pool is None and m.global_pool in ("token", "avg"), f"it pools by {m.global_pool or 'nothing'!r}")
    need(not m.pool_include_prefix, "its mean includes class token and registers (pool_include_prefix)")
    distilled, token = isinstance(m, VisionTransformerDistilled), m.global_pool == "token"
    pool: Pool = "cls_dist" if distilled else "cls" if token else "normed_patches" if before else "patches"
    head = isinstance(m.head, nn.Linear)
    hidden = m.blocks[0].mlp.fc1.weight.shape[0]
    activation: Activation = kinds.pop()  # type: ignore[assignment]
    return Structure(
        image_size=stem.img_size[0],
        patch_size=stem.patch_size[0],
        embed_dim=m.embed_dim,
        depth=len(m.blocks),
        num_heads=m.blocks[0].attn.num_heads,
        mlp_ratio=hidden / m.embed_dim,
        num_classes=m.head.weight.shape[0] if head else m.embed_dim,
        pool=pool,
        registers=m.num_prefix_tokens - 1,
        activation=activation,
        norm_eps=eps.pop(),
        pre_norm=pre_norm,
        head=head,
    )


def _attention(attn: Any, dim: int, where: str, need: Any) -> None:
    from timm.layers.attention import Attention

    need(type(attn) is Attention, f"{where} attends by {type(attn).__name__}")
    need(
        isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity),
        f"{where} norms q and k (qk_norm)",
    )
    need(isinstance(attn.norm, nn.Identity), f"{where} norms what it attended to (scale_attn_norm)")
    need(getattr(attn, "gate", None) is None, f"{where} gates its attention")
    need(getattr(attn, "attn_dim", dim) == dim, f"{where} has heads that do not add up to the embed dim")


def _activation(mlp: Any, where: str, need: Any) -> str:
    """Which of :data:`.recipes.vit.Activation` an MLP has."""
    from timm.layers.activations import GELU, QuickGELU
    from timm.layers.mlp import GluMlp, Mlp

    kind, act = type(mlp), getattr(mlp, "act", None)
    need(kind in (Mlp, GluMlp), f"the MLP of {where} is a {kind.__name__}")
    need(isinstance(mlp.fc1, nn.Linear), f"the MLP of {where} is made of convolutions")
    need(isinstance(mlp.norm, nn.Identity), f"{where} norms within its MLP (scale_mlp_norm)")
    if kind is GluMlp:
        need(
            isinstance(act, nn.SiLU) or type(act).__name__ == "SiLU", f"{where} gates by {type(act).__name__}, not SiLU"
        )
        need(not mlp.gate_last, f"{where} gates by the second half of its MLP")
        return "swiglu"
    if isinstance(act, QuickGELU):
        return "quick_gelu"
    exact = isinstance(act, GELU) or (isinstance(act, nn.GELU) and act.approximate == "none")
    need(exact, f"{where} has the activation {type(act).__name__}")
    return "gelu"


def rename(state: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """Rename timm's parameters to those of ``vit.py``; exact folds take out what DeiT lacks.

    LayerScale goes into proj and fc2; position embeddings that leave class token and registers out (``no_embed_class``) get
    zeros there; biases that are not there are zero; the two heads of a distilled model become one, of half their weights.

    Args:
        state: Float32, in timm's names.
        structure: Of the model.
    """
    dim, new = structure.embed_dim, dict[str, Tensor]()

    def layer(ours: str, theirs: str, scale: str = "") -> None:
        weight = state[f"{theirs}.weight"]
        bias = state.get(f"{theirs}.bias", weight.new_zeros(weight.shape[0]))
        if scale in state:
            gamma = state[scale].double()
            weight, bias = (gamma[:, None] * weight).float(), (gamma * bias).float()
        new[f"{ours}.weight"], new[f"{ours}.bias"] = weight, bias

    layer("patch_embed", "patch_embed.proj")
    new["cls_token"] = torch.cat(
        [state[f"{key}_token"] for key in ("cls", "dist", "reg") if f"{key}_token" in state], 1
    )
    places = state.get("pos_embed", torch.zeros(1, structure.num_patches, dim))
    if places.shape[1] == structure.num_patches:
        places = torch.cat((places.new_zeros(1, structure.prefix_tokens, dim), places), 1)
    new["pos_embed"] = places
    if structure.pre_norm:
        layer("norm_pre", "norm_pre")
    for i in range(structure.depth):
        for part in ("norm1", "attn.qkv", "norm2"):
            layer(f"blocks.{i}.{part}", f"blocks.{i}.{part}")
        layer(f"blocks.{i}.attn.proj", f"blocks.{i}.attn.proj", f"blocks.{i}.ls1.gamma")
        layer(f"blocks.{i}.fc1", f"blocks.{i}.mlp.fc1")
        layer(f"blocks.{i}.fc2", f"blocks.{i}.mlp.fc2", f"blocks.{i}.ls2.gamma")
    layer("norm", "fc_norm" if "fc_norm.weight" in state else "norm")
    if structure.head:
        layer("head", "head")
    if structure.pool == "cls_dist" and structure.head:
        layer("dist", "head_dist")
        weight, bias = new.pop("dist.weight"), new.pop("dist.bias")
        new["head.weight"] = torch.cat((new["head.weight"], weight), 1) / 2
        new["head.bias"] = (new["head.bias"] + bias) / 2
    return new

"""Small models of every timm family with all parameters at random, and token evolution over timm's own blocks, by hand."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.models.vit.timm_vit import structure_of
from evovit_deploy.recipes import Evolution, Recipe

SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 2, "num_classes": 7}
# 36 patches each; the names decide LayerScale, registers, where positions are, pre-norm, activation.
FAMILIES: dict[str, dict[str, Any]] = {
    "deit_small_patch16_224": {"img_size": 96},
    "deit_small_distilled_patch16_224": {"img_size": 96},
    "deit_small_distilled_patch16_224 headless": {"img_size": 96, "num_classes": 0},
    "deit3_small_patch16_224": {"img_size": 96},
    "vit_small_patch16_224": {"img_size": 96},
    "vit_small_patch16_224 avg": {"img_size": 96, "global_pool": "avg"},
    "vit_small_patch16_224 avg, normed before": {"img_size": 96, "global_pool": "avg", "fc_norm": False},
    "vit_small_patch14_dinov2": {"img_size": 84},
    "vit_small_patch14_dinov2 headless": {"img_size": 84, "num_classes": 0},
    "vit_small_patch14_reg4_dinov2": {"img_size": 84},
    "vit_small_patch14_reg4_dinov2 avg": {"img_size": 84, "global_pool": "avg"},
    "vit_giant_patch14_reg4_dinov2": {"img_size": 84, "embed_dim": 96},
    "vit_base_patch32_clip_quickgelu_224": {"img_size": 192},
    "vit_base_patch32_clip_224": {"img_size": 192},
}


@functools.cache
def timm_model(family: str, depth: int = SMALL["depth"]) -> nn.Module:
    """A small model of the family; biases, norms and LayerScale are random too, so that one that is forgotten shows."""
    import timm

    name = family.split()[0]
    model = (
        timm.create_model(name, pretrained=False, **{**SMALL, "depth": depth, **FAMILIES[family]})
        .eval()
        .requires_grad_(False)
    )
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if key.endswith("gamma") or (parameter.dim() == 1 and "norm" in key and key.endswith("weight")):
            parameter.copy_(1 + 0.3 * values)
        elif key.endswith("bias"):
            parameter.copy_(0.3 * values)
        elif parameter.dim() > 1 and key.endswith("weight"):
            parameter.copy_(1.5 * values * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.5 * values)
    return model


def images_for(model: Any, count: int = 3) -> Tensor:
    """[n, 3, S, S] float32 with patches that differ in brightness."""
    size, generator = model.patch_embed.img_size[0], torch.Generator().manual_seed(1)
    coarse = nn.functional.interpolate(torch.randn(count, 3, 6, 6, generator=generator), (size, size))
    return coarse + 0.5 * torch.randn(count, 3, size, size, generator=generator)


def checkpoint_of(family: str, evolution: Evolution | None = None) -> Checkpoint:
    """The model as a checkpoint, half of the patches kept unless told otherwise."""
    evolution = evolution or scaled_evolution(SMALL["depth"])
    model = timm_model(family, len(evolution.keep_ratios))
    name = family.split()[0]
    recipe = Recipe(f"evo_{name}", "evo_vit", structure_of(model, name), evolution, baseline=name)
    return Checkpoint(None, recipe, dict(model.state_dict()), "test", "float32", None)


@torch.inference_mode()
def evolved(
    model: Any, images: Tensor, evolution: Evolution, states: list[Tensor] | None = None
) -> tuple[Tensor, list[list[list[int]]]]:
    """Logits, and for every image the kept patches of every selection: loops over timm's blocks, nothing clever.

    All tokens of an image after every block, [depth, P + N, C], go into ``states``.
    """
    logits, kept_of_all = [], []
    prefix = model.num_prefix_tokens
    for image in images:
        x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0].clone()
        patches = len(x) - prefix
        scores, kept, chosen = torch.zeros(patches), [], torch.arange(patches)
        after = []
        for i, block in enumerate(model.blocks):
            ratio = evolution.keep_ratios[i]
            if ratio == 1:
                chosen = torch.arange(patches)
            elif evolution.schedule == "layer" or i in evolution.stage_starts:
                best = torch.argsort(scores, descending=True, stable=True)
                chosen = best[: int(patches * ratio)].sort().values
                kept.append(chosen.tolist())
            places = torch.cat((torch.arange(prefix), prefix + chosen))
            tokens = x[places]
            attention = block.attn
            heads, width = attention.num_heads, attention.head_dim
            q, k, _ = attention.qkv(block.norm1(tokens)).reshape(len(tokens), 3, heads, width).unbind(1)
            c = torch.zeros(len(chosen))
            for head in range(heads):  # class attention of this head: the class token's row, its patches
                row = (k[:, head] @ q[0, head] * width**-0.5).softmax(0)
                c += row[prefix:]
            t = 1.0 if i == 0 else evolution.tradeoff[i]
            scores[chosen] = (1 - t) * scores[chosen] + t * c
            x[places] = block(tokens[None])[0]  # all others stay what they are
            after.append(x.clone())
        logits.append(model.forward_head(model.norm(x[None]))[0])
        kept_of_all.append(kept)
        if states is not None:
            states.append(torch.stack(after))
    return torch.stack(logits), kept_of_all

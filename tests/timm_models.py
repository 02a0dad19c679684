"""Small models of every timm family with all parameters at random, and each method over timm's own blocks, by hand."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.models.vit.timm_vit import structure_of
from evovit_deploy.models.vit.tome_recipe import Merging
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


def merging_of(family: str, r: tuple[int, ...]) -> Checkpoint:
    """The model as a checkpoint whose tokens are merged, ``r`` in every block."""
    model = timm_model(family, len(r))
    name = family.split()[0]
    recipe = Recipe(f"tome_{name}", "tome_vit", structure_of(model, name), Merging(r), baseline=name)
    return Checkpoint(None, recipe, dict(model.state_dict()), "test", "float32", None)


@torch.inference_mode()
def merged(model: Any, images: Tensor, r: tuple[int, ...]) -> tuple[Tensor, list[list[list[list[int]]]]]:
    """Logits, and for every image and block the patches in every token: lists of tokens over timm's blocks, nothing clever."""
    logits, groups_of_all = [], []
    prefix = model.num_prefix_tokens
    for image in images:
        x = list(model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0])
        groups: list[list[int]] = [[] for _ in range(prefix)] + [[p] for p in range(len(x) - prefix)]
        told = []
        for block, count in zip(model.blocks, r):
            tokens, attention = torch.stack(x), block.attn
            heads, width = attention.num_heads, attention.head_dim
            q, k, v = attention.qkv(block.norm1(tokens)).reshape(len(x), 3, heads, width).unbind(1)
            sizes = torch.tensor([max(1, len(group)) for group in groups], dtype=torch.float32)
            rows = torch.einsum("ihd,jhd->hij", q, k) * width**-0.5 + sizes.log()
            mixed = torch.einsum("hij,jhd->ihd", rows.softmax(-1), v).flatten(1)
            x = list(tokens + block.ls1(attention.proj(mixed)))
            keys = torch.nn.functional.normalize(k.mean(1), dim=-1)
            odd = [i for i in range(prefix, len(x)) if i % 2]
            best = []
            for i in range(prefix, len(x)):
                if i % 2 == 0:
                    alike = [float(keys[i] @ keys[j]) for j in odd]
                    best.append((-max(alike), i, odd[alike.index(max(alike))]))
            into = {i: j for _, i, j in sorted(best)[: min(count, (len(x) - prefix) // 2)]}
            weight = {i: float(sizes[i]) for i in range(len(x))}
            sums = {i: x[i] * weight[i] for i in range(len(x))}
            for i, j in into.items():
                sums[j], weight[j] = sums[j] + sums[i], weight[j] + weight[i]
                groups[j] = groups[j] + groups[i]
            even = [i for i in range(prefix, len(x)) if i % 2 == 0 and i not in into]
            order = [*range(prefix), *even, *odd] if into else list(range(len(x)))
            x, groups = [sums[i] / weight[i] for i in order], [groups[i] for i in order]
            tokens = torch.stack(x)
            x = list(tokens + block.ls2(block.mlp(block.norm2(tokens))))
            told.append([sorted(group) for group in groups])
        logits.append(model.forward_head(model.norm(torch.stack(x)[None]))[0])
        groups_of_all.append(told)
    return torch.stack(logits), groups_of_all


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

"""Exact weight folding: the same function with fewer operations.

Each fold is algebra on the weights, done in float64 and rounded once, so folded and unfolded models agree to rounding:

1. LayerNorm's affine goes into the Linear after it.
2. 1/sqrt(D) goes into W_q.
3. The K bias adds the same number to every logit of a softmax row, so it drops out, unless keys are compared (ToMe).
4. The rows of an attention sum to 1, so the V bias passes through unchanged, into the bias of proj.
5. The patch bias, class token and registers go into the position embedding.
6. For uint8 input, mean and std go into the patch embedding. Pixels are centred on an integer and scaled by a power of
   two, both exact in FP16; the patch convolution has no padding, so the constant part is exact too.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .layers import Attention, Block
from .vit import VisionTransformer

__all__ = ["fold"]

PIXEL_SCALE = 1 / 64  # keeps folded weights clear of FP16's subnormal range


def fold(model: VisionTransformer) -> VisionTransformer:
    """Return a folded copy of ``model``; the original is left as it is. Fold before changing precision.

    Raises:
        ValueError: The model's parameters are not float32.
    """
    if next(model.parameters()).dtype != torch.float32:
        raise ValueError("fold() works on float32 parameters; convert to half precision afterwards")
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        for number, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            _norm_into_linear(block.norm1, block.attn.qkv)
            _norm_into_linear(block.norm2, block.fc1)
            _attention(block.attn, keys=number in model.reads_keys)
        # Also where a mean stands between them: it passes the affine through. Not where what the norm gives is an output.
        if isinstance(model.head, nn.Linear) and not model.features.normed:
            _norm_into_linear(model.norm, model.head)
        if model.image_input == "uint8":
            _pixels(model)
        _patch_bias(model)
    return model.float()


def _norm_into_linear(norm: nn.LayerNorm, linear: nn.Linear) -> None:
    """W (g * n + b) + c = (W g) n + (W b + c); the Linear may read several normed tokens in a row."""
    tokens = linear.in_features // norm.weight.numel()
    linear.bias.add_(linear.weight @ norm.bias.repeat(tokens))
    linear.weight *= norm.weight.repeat(tokens)
    norm.weight.fill_(1)
    norm.bias.zero_()


def _attention(attention: Attention, keys: bool) -> None:
    dim = attention.proj.in_features
    weight, bias = attention.qkv.weight, attention.qkv.bias
    weight[:dim] *= attention.scale
    bias[:dim] *= attention.scale
    attention.scale = 1.0
    if not keys:
        bias[dim : 2 * dim] = 0
    attention.proj.bias.add_(attention.proj.weight @ bias[2 * dim :])
    bias[2 * dim :] = 0


def _pixels(model: VisionTransformer) -> None:
    """sum w (p - m) / s = sum (w / s / z) ((p - c) z) + sum w (c - m) / s, with integer c and power of two z."""
    conv = model.patch_embed
    center: Tensor = model.pixel_center.round()
    offset = (center - model.pixel_center) * model.pixel_scale  # [3], what centring leaves over
    assert conv.bias is not None
    conv.bias += (conv.weight * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
    conv.weight *= (model.pixel_scale / PIXEL_SCALE).view(1, 3, 1, 1)
    model.pixel_center = center
    model.pixel_scale = torch.full_like(center, PIXEL_SCALE)


def _patch_bias(model: VisionTransformer) -> None:
    conv = model.patch_embed
    assert conv.bias is not None
    prefix = model.structure.prefix_tokens
    model.pos_embed[:, prefix:] += conv.bias
    conv.bias = None
    model.pos_embed[:, :prefix] += model.cls_token
    model.cls_token.zero_()

"""Exact weight folding for (Evo-)LeViT: the same function with fewer operations, see :mod:`.folding`.

1. BatchNorm goes into its Linear or convolution, that of a head into the Linear after it.
2. 1/sqrt(D) goes into W_q.
3. The K bias adds the same number to every logit of a softmax row, so it drops out. The V bias stays where it is: Hardswish
   stands between it and proj.
4. The bias of the stem goes into the position embedding.
5. Two heads on the same feature are averaged into one.
6. For uint8 input, 1/std goes into the stem: a scale maps the zero of the padding to zero. The mean would not.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from .layers import Attention, ConvNorm, Head, LinearNorm, Subsample
from .levit import EvoLevit
from .vanilla import VanillaLevit

__all__ = ["Model", "fold"]

PIXEL_SCALE = 1 / 64  # keeps folded weights clear of FP16's subnormal range
Model = TypeVar("Model", EvoLevit, VanillaLevit)


def fold(model: Model) -> Model:
    """Return a folded copy of an :class:`.EvoLevit` or :class:`.VanillaLevit`. Fold before changing precision.

    Raises:
        ValueError: The model's parameters are not float32.
    """
    if next(model.parameters()).dtype != torch.float32:
        raise ValueError("fold() works on float32 parameters; convert to half precision afterwards")
    folded = copy.deepcopy(model).double()
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, LinearNorm):
                _norm_after(module.linear, module.norm)
                module.norm = None
            elif isinstance(module, ConvNorm):
                _norm_after(module.conv, module.norm)
                module.norm = None
            elif isinstance(module, Head):
                _norm_before(module)
        for module in folded.modules():
            if isinstance(module, Attention):
                _attention(module)
            elif isinstance(module, Subsample):
                _subsample(module)
        _heads(folded.heads)
        folded.fold_positions()
        if folded.image_input == "uint8":
            _pixels(folded)
    return folded.float()


def _norm_after(layer: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d | None) -> None:
    """g (W x - m) / s + b = (W g / s) x + (b - m g / s)."""
    scale, shift = _affine(norm)
    layer.weight.mul_(scale.view(-1, *(1,) * (layer.weight.dim() - 1)))
    layer.bias = nn.Parameter(shift)


def _norm_before(head: Head) -> None:
    scale, shift = _affine(head.norm)
    head.linear.bias.add_(head.linear.weight @ shift)
    head.linear.weight.mul_(scale)
    head.norm = None


def _affine(norm: nn.BatchNorm1d | nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """BatchNorm in eval mode as x * scale + shift."""
    assert norm is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


def _attention(module: Attention) -> None:
    """A head has D rows of q, D of k, then those of v."""
    weight, bias = module.qkv.linear.weight, module.qkv.linear.bias.view(module.num_heads, -1)
    rows = weight.view(module.num_heads, -1, weight.shape[1])
    rows[:, : module.key_dim] *= module.scale
    bias[:, : module.key_dim] *= module.scale
    bias[:, module.key_dim : 2 * module.key_dim] = 0
    module.scale = 1.0


def _subsample(module: Subsample) -> None:
    """A head has D rows of k, then those of v; q has a Linear of its own."""
    module.q.linear.weight.mul_(module.scale)
    module.q.linear.bias.mul_(module.scale)
    module.kv.linear.bias.view(module.num_heads, -1)[:, : module.key_dim] = 0
    module.scale = 1.0


def _heads(heads: nn.ModuleList) -> None:
    linears = [head.linear for head in heads if isinstance(head, Head)]
    linears[0].weight.copy_(torch.stack([linear.weight for linear in linears]).mean(0))
    linears[0].bias.copy_(torch.stack([linear.bias for linear in linears]).mean(0))
    del heads[1:]


def _pixels(model: EvoLevit | VanillaLevit) -> None:
    first = model.patch_embed[0]
    assert isinstance(first, ConvNorm)
    scale = first.conv.weight.new_tensor(model.pixels.scale)
    first.conv.weight.mul_((scale / PIXEL_SCALE).view(1, 3, 1, 1))
    model.pixels.scale = [PIXEL_SCALE] * 3

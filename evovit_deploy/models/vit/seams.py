"""Where a class-token ViT can be scaled by powers of two without a change of its function.

- The value of an attention passes through it linearly, and so does the second half of SwiGLU's input.
- q over 2^k and k times 2^k have the same product.
- A LayerNorm's own weights against those of the Linear after it, channel by channel.
- LayerNorm does not see the scale of its input but for epsilon: the whole residual stream over 2^k, epsilon over 4^k.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..outputs import kind_of
from ..seams import Scaled, Seam, Seen

__all__ = ["vit_seams"]


def vit_seams(module: Any) -> tuple[Seam, ...]:
    """Return the seams of an FP32 :class:`.VisionTransformer`, folded or not, that leave its outputs as they are."""
    blocks = [seam for i, block in enumerate(module.blocks) for seam in _block(f"blocks.{i}", block)]
    kinds = {kind_of(name) for name in module.outputs}
    raw = {"blocks"} if module.features.norms_tokens else {"blocks", "class_token", "patch_tokens"}
    residual = () if kinds & raw else (_residual(module),)  # an output would be scaled with it
    return (*residual, *blocks, *(() if module.features.normed else _head(module)))


def _residual(module: Any) -> Seam:
    norms = [norm for block in module.blocks for norm in (block.norm1, block.norm2)]
    if isinstance(module.norm_pre, nn.LayerNorm):
        first = _rows(module.norm_pre)
    else:
        first = (*_rows(module.patch_embed), Scaled(module.cls_token), Scaled(module.pos_embed))
    adding = [part for block in module.blocks for layer in (block.attn.proj, block.fc2) for part in _rows(layer)]
    seen = (Seen(r"(after_)?blocks\.\d+/(Add.*|fc2/.*|attn/proj/.*|merge/MatMul.*)"), Seen(r"embed/.*"))
    return Seam("residual", (*first, *adding), (), seen, norms=(*norms, module.norm))


def _block(name: str, block: Any) -> Iterator[Seam]:
    attn = block.attn
    dim, node = attn.proj.in_features, f"{name}/attn/qkv/.*".replace(".", r"\.", 1)
    query, key, value = (_rows(attn.qkv, place * dim, (place + 1) * dim) for place in range(3))
    seen = [Seen(node, place * dim, (place + 1) * dim) for place in range(3)]
    yield Seam(f"{name}.attn.value", value, (Scaled(attn.proj.weight, 1),), (seen[2],), dim)
    yield Seam(f"{name}.attn.query", query, key, (seen[0],), against=(seen[1],))
    for norm, linear in ((block.norm1, attn.qkv), (block.norm2, block.fc1)):
        which = "norm1" if norm is block.norm1 else "norm2"
        at = Seen(f"{name}/{which}/LayerNormalization".replace(".", r"\.", 1))
        yield Seam(f"{name}.{which}", _rows(norm), (Scaled(linear.weight, 1),), (at,), dim)
    if block.fc1.out_features == 2 * block.fc2.in_features:  # SwiGLU
        half = block.fc2.in_features
        at = Seen(f"{name}/fc1/.*".replace(".", r"\.", 1), half)
        product = Seen(f"{name}/act/Mul.*".replace(".", r"\.", 1))
        yield Seam(f"{name}.act.value", _rows(block.fc1, half), (Scaled(block.fc2.weight, 1),), (at, product), half)


def _head(module: Any) -> Iterator[Seam]:
    """The last LayerNorm; the head reads one normed token, or several in a row, or the mean of many."""
    if isinstance(module.head, nn.Linear):
        dim = module.norm.weight.numel()
        weight: Any = module.head.weight
        columns = weight.split(dim, 1)
        at = Seen(r"(.*/)?norm/LayerNormalization")
        yield Seam("norm", _rows(module.norm), tuple(Scaled(part, 1) for part in columns), (at,), dim)


def _rows(layer: Any, first: int = 0, stop: int | None = None) -> tuple[Scaled, ...]:
    """Weight and bias of some output channels."""
    return tuple(Scaled(tensor[first:stop]) for tensor in (layer.weight, layer.bias) if tensor is not None)

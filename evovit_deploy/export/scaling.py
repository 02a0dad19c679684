"""Powers of two into neighbouring weights: the same function, exactly, with values that fit into FP16.

- The value of an attention passes through linearly: v / 2^k, and the projection after it times 2^k.
- q / 2^k and k times 2^k have the same product.
- LayerNorm does not see the scale of its input but for epsilon: the whole residual stream over 2^k, epsilon over 4^k.
- A LayerNorm's own weights over 2^k, those of the Linear after it times 2^k (where they are not folded together).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..engines.emulate import FP16_MAX

__all__ = ["propose", "rescale"]

ROOM = 2.0**13  # what a value that is scaled down is brought below
SMALL = 2.0**-12  # what is all below this is scaled up


def propose(module: Any, largest: Mapping[str, float]) -> dict[str, int]:
    """Return what to scale down, by what power of two (negative: up), for a vision transformer; empty for other models.

    Args:
        module: FP32, as it is exported.
        largest: Node -> largest magnitude of its value in FP32.
    """
    from ..models.vit.vit import VisionTransformer

    if not isinstance(module, VisionTransformer):
        return {}
    found: dict[str, int] = {}
    blocks: Any = module.blocks
    stream = [largest.get(name, 0.0) for name in largest if _is_stream(name)]
    weights = [float(part.abs().max()) for block in blocks for part in (block.fc2.weight, block.fc2.bias)]
    if (top := max([*stream, *weights], default=0.0)) > FP16_MAX / 2:
        found["residual"] = _power(top)
    for i, block in enumerate(blocks):
        dim = block.attn.proj.in_features
        weight = block.attn.qkv.weight.abs()
        parts = {}
        for place, (part, node) in enumerate((("query", "Slice"), ("key", "Slice_2"), ("value", "Slice_3"))):
            rows = float(weight[place * dim : (place + 1) * dim].max())
            seen = largest.get(f"blocks.{i}/attn/{node}", 0.0)
            parts[part] = (max(seen, rows), seen)
        if (power := _wanted(*parts["value"])) != 0:
            found[f"blocks.{i}.attn.value"] = power
        (query, _), (key, _) = parts["query"], parts["key"]
        apart = max(query, key) > FP16_MAX / 2 or (min(query, key) < SMALL and max(query, key) > 1)
        if apart and query and key and (power := round(math.log2(query / key) / 2)) != 0:
            found[f"blocks.{i}.attn.query"] = power
        for name in ("norm1", "norm2"):
            seen = largest.get(f"blocks.{i}/{name}/LayerNormalization", 0.0)
            if (power := _wanted(max(seen, float(getattr(block, name).weight.abs().max())), seen)) > 0:
                found[f"blocks.{i}.{name}"] = power
    return found


def rescale(module: Any, powers: Mapping[str, int]) -> None:
    """Scale an FP32 vision transformer in place; every weight is multiplied by a power of two, and the function stays.

    Args:
        module: FP32.
        powers: From :func:`propose`.
    """
    for name, power in powers.items():
        down, up = 2.0**-power, 2.0**power
        if name == "residual":
            _residual(module, power)
            continue
        block = module.blocks[int(name.split(".")[1])]
        attn, part = block.attn, name.rpartition(".")[2]
        dim = attn.proj.in_features
        if part == "value":
            _scale(attn.qkv, down, slice(2 * dim, None))
            attn.proj.weight.mul_(up)
        elif part == "query":
            _scale(attn.qkv, down, slice(0, dim))
            _scale(attn.qkv, up, slice(dim, 2 * dim))
        else:
            _scale(getattr(block, part), down)
            (attn.qkv if part == "norm1" else block.fc1).weight.mul_(up)


def _residual(module: Any, power: int) -> None:
    down = 2.0**-power
    if isinstance(module.norm_pre, nn.LayerNorm):
        _scale(module.norm_pre, down)
    else:
        _scale(module.patch_embed, down)
        module.cls_token.mul_(down)
        module.pos_embed.mul_(down)
    for block in module.blocks:
        _scale(block.attn.proj, down)
        _scale(block.fc2, down)
        block.norm1.eps *= down * down
        block.norm2.eps *= down * down
    module.norm.eps *= down * down


def _scale(layer: Any, factor: float, rows: slice = slice(None)) -> None:
    layer.weight[rows].mul_(factor)
    if layer.bias is not None:
        layer.bias[rows].mul_(factor)


def _is_stream(node: str) -> bool:
    module, _, op = node.rpartition("/")
    return (module.startswith("blocks.") and "/" not in module and op.startswith("Add")) or module.endswith("/fc2")


def _power(top: float) -> int:
    """The power of two that brings a value below :data:`ROOM`."""
    return math.ceil(math.log2(top / ROOM)) if math.isfinite(top) else 0


def _wanted(top: float, seen: float) -> int:
    """How far down (or up, negative) a value has to go; 0 where it is fine."""
    if top > FP16_MAX / 2:
        return _power(top)
    if 0 < seen < SMALL:
        return math.floor(math.log2(seen))  # to about 1
    return 0

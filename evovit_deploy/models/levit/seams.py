"""Where Evo-LeViT can be scaled by powers of two without a change of its function.

There is no LayerNorm: Linear layers read the residual stream of a stage, so every channel of it can be scaled on its own. q over
2^k and k times 2^k have the same product. Hardswish, which stands between all other layers, does not commute with a factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..seams import Scaled, Seam, Seen

__all__ = ["levit_seams"]


def levit_seams(module: Any) -> tuple[Seam, ...]:
    """Return the seams of an FP32 :class:`.EvoLevit`, folded or not, that leave its outputs as they are."""
    attentions = [(f"blocks.{i}.attn", f"blocks.{i}/attn", block.attn) for i, block in enumerate(module.blocks)]
    return (*_residuals(module), *(_query(*attention) for attention in attentions))


def _residuals(module: Any) -> Iterator[Seam]:
    """The stream of each stage."""
    depths, start = module.structure.depths, 0
    for stage, depth in enumerate(depths):
        numbers = range(start, start + depth)
        start += depth
        blocks = [module.blocks[i] for i in numbers]
        if stage == 0:
            down = [*_written(module.patch_embed[-1]), Scaled(module.cls_token, 2), Scaled(module.pos_embed, 2)]
            up, seen = [], [Seen(r"embed/(?!patch_embed).*")]
        else:
            before = module.subsamples[stage - 1]
            down = [*_written(before.proj), *_written(before.mlp.fc2)]
            up = [_read(before.mlp.fc1)]
            seen = [Seen(rf".*subsamples\.{stage - 1}[./](proj|mlp[./]fc2)[./].*")]
        for block in blocks:
            down += [*_written(block.attn.proj), *_written(block.mlp.fc2)]
            up += [_read(block.attn.qkv), _read(block.mlp.fc1)]
        those = "|".join(map(str, numbers))
        seen.append(Seen(rf"blocks\.({those})/(Add.*|attn/proj/.*|mlp/fc2/.*)"))
        if stage < len(module.subsamples):
            after = module.subsamples[stage]
            down.append(Scaled(module.positions[stage], 2))
            up += [_read(after.q), _read(after.kv)]
        else:
            for head in module.heads:
                if head.norm is None:
                    up.append(Scaled(head.linear.weight, 1))
                else:  # g (x - m) / s: m scales with x, and g takes the factor back
                    down.append(Scaled(head.norm.running_mean))
                    up.append(Scaled(head.norm.weight))
            if "embedding" in module.outputs:  # it would be scaled too
                return
        name = "residual" if len(depths) == 1 else f"residual.{stage}"
        yield Seam(name, tuple(down), tuple(up), tuple(seen), module.structure.embed_dims[stage])


def _query(name: str, node: str, attn: Any) -> Seam:
    """q and k of all heads of an attention; a head has D rows of q, D of k, then those of v."""
    size, heads = attn.key_dim, attn.num_heads
    q, k = [], []
    for part in _written(attn.qkv):
        rows = part.tensor.view(heads, -1, *part.tensor.shape[1:])
        q.append(Scaled(rows[:, :size]))
        k.append(Scaled(rows[:, size : 2 * size]))
    wide = attn.proj.linear.in_features // heads + 2 * size
    place = node.replace(".", r"\.", 1)
    seen = [[Seen(f"{place}/qkv/.*", h * wide + at, h * wide + at + size) for h in range(heads)] for at in (0, size)]
    return Seam(f"{name}.query", tuple(q), tuple(k), tuple(seen[0]), against=tuple(seen[1]))


def _written(layer: Any) -> list[Scaled]:
    """What makes the output channels of a Linear or convolution with BatchNorm."""
    inner = layer.linear if hasattr(layer, "linear") else layer.conv
    last = inner if layer.norm is None else layer.norm
    return [Scaled(tensor) for tensor in (last.weight, last.bias) if tensor is not None]


def _read(layer: Any) -> Scaled:
    """What reads the input channels."""
    return Scaled(layer.linear.weight, 1)

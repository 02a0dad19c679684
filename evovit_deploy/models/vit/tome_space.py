"""What a search may change about the merging of a ViT (ToMe), and what it costs before it is exported."""

from __future__ import annotations

from ...recipes import Recipe, Structure
from ..families import Rates
from ..space import Axis, Space
from .space import block_macs
from .tome_recipe import Merging

__all__ = ["space", "work"]

SHARES = (0.25, 0.5, 0.7, 0.9)  # of the patches, merged in all, that are tried where no r is given


def space(recipe: Recipe, rates: Rates) -> Space:
    """See :attr:`.Family.space`: r of every block."""
    structure, own = recipe.parts(Structure, Merging)
    depth = len(own.r)
    given = rates.r or [max(1, round(share * structure.num_patches / depth)) for share in SHARES]
    tried = tuple(dict.fromkeys(float(r) for r in given))
    for r in tried:
        own.with_r((r,))  # or it is impossible
    amounts = tuple(sorted({0.0, *tried}))
    axes = tuple(Axis(f"r of block {block}", amounts) for block in range(depth))

    def name(values: tuple[float, ...]) -> str:
        return "_".join(("r", *(f"{r:g}" for r in (values[:1] if len(set(values)) == 1 else values))))

    return Space(recipe, axes, (0,) * depth, tried, own.with_r, name)


def work(recipe: Recipe) -> float:
    """See :attr:`.Family.work`: tokens are merged between attention and MLP, by one product of all with those that are left."""
    structure, merging = recipe.parts(Structure, Merging)
    tokens, found, merges = structure.prefix_tokens + structure.num_patches, list[tuple[int, int]](), 0.0
    width = structure.embed_dim // structure.num_heads
    for block, merged in enumerate(merging.counts(structure)):
        if merged and not (structure.classified and block + 1 == structure.depth):  # whose patches nobody reads
            merges += (tokens - merged) * tokens * structure.embed_dim + tokens**2 / 4 * width
        found.append((tokens, tokens - merged))
        tokens -= merged
    return merges + block_macs(structure, found)

"""Which blocks run on which tokens, and which class attentions are alive: all of it derived from a recipe.

Between two selections the scores evolve linearly, s <- (1 - t) s + t c (Evo-ViT, section 3.2), so after a group of blocks

    s = carry * s_before + sum_i weight_i * c_i

A class attention c_i is computed only if its weight is not zero and a later group selects by s. In the published schedule
(t = 1 in blocks 0-3, the last selection before block 8) that leaves blocks 3 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import RecipeError
from ...recipes import Evolution

__all__ = ["Group", "plan"]


@dataclass(frozen=True)
class Group:
    """Consecutive blocks that run on the same tokens.

    Attributes:
        first, stop: Block range ``first <= i < stop``.
        keep: K, the number of patch tokens selected before block ``first``; None when all take part.
        carry: What is left of the scores from before the group; 0 when they are dead.
        weights: Block number -> weight of its class attention in the scores after the group; empty when dead.
    """

    first: int
    stop: int
    keep: int | None = None
    carry: float = 0.0
    weights: dict[int, float] = field(default_factory=dict)

    @property
    def blocks(self) -> range:
        """Numbers of the blocks in this group."""
        return range(self.first, self.stop)


def plan(evolution: Evolution, num_patches: int) -> list[Group]:
    """Return groups in order, with dead class attentions removed.

    Args:
        evolution: Keep ratios, tradeoff and schedule.
        num_patches: N; K = int(N * ratio), as in the authors' code.

    Raises:
        RecipeError: A keep ratio that keeps no patch of this many.
    """
    groups = [_with_scores(first, stop, keep, evolution) for first, stop, keep in _ranges(evolution, num_patches)]
    needed = False
    for index in reversed(range(len(groups))):
        group = groups[index]
        if not needed:
            groups[index] = Group(group.first, group.stop, group.keep)
        if group.keep is not None:
            needed = True  # selects by the scores of its predecessor
        elif group.carry == 0:
            needed = False  # overwrites every score itself
    return groups


def _ranges(evolution: Evolution, num_patches: int) -> list[tuple[int, int, int | None]]:
    """(first, stop, K or None) of every group; neighbours that keep everything are one group."""
    depth = len(evolution.keep_ratios)
    starts = {0, *evolution.stage_starts} if evolution.schedule == "stage" else set(range(depth))
    bounds = [*sorted(starts), depth]
    ranges: list[tuple[int, int, int | None]] = []
    for first, stop in zip(bounds, bounds[1:]):
        ratio = evolution.keep_ratios[first]
        keep = None if ratio == 1 else int(num_patches * ratio)
        if keep == 0:
            raise RecipeError(
                f"keep ratio {ratio:g} in block {first} keeps no patch of {num_patches}; "
                f"the smallest that keeps one is {1 / num_patches:.4g}."
            )
        if keep is None and ranges and ranges[-1][2] is None:
            ranges[-1] = (ranges[-1][0], stop, None)
        else:
            ranges.append((first, stop, keep))
    return ranges


def _with_scores(first: int, stop: int, keep: int | None, evolution: Evolution) -> Group:
    """Unroll s <- (1 - t) s + t c over the blocks of one group; block 0 sets s = c."""
    carry = 1.0
    weights: dict[int, float] = {}
    for block in range(first, stop):
        t = 1.0 if block == 0 else evolution.tradeoff[block]
        carry *= 1 - t
        weights = {i: w * (1 - t) for i, w in weights.items() if w * (1 - t)}
        if t:
            weights[block] = t
    return Group(first, stop, keep, carry, weights)

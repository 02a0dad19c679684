"""Which blocks of Evo-LeViT run on which tokens, and which class attentions are alive.

As in :mod:`.schedule`, scores evolve linearly, so after a group s = carry * s_before + sum_i weight_i * c_i. Here c is the
MEAN over heads, the tradeoff t of every attention is learned, and between stages the scores are subsampled with the grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import RecipeError
from ...recipes.levit import LevitEvolution, LevitStructure

__all__ = ["Group", "Stage", "plan"]


@dataclass(frozen=True)
class Group:
    """Consecutive blocks that run on the same tokens.

    Attributes:
        first, stop: Block range ``first <= i < stop``, numbered through all stages.
        keep: K, the number of patch tokens selected before block ``first``; None when all take part.
        carry: What is left of the scores from before the group; 0 when they are dead.
        weights: Block number -> weight of its class row, summed over heads, in the scores after the group (so the 1 / H of
            the mean is in it); empty when dead.
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


@dataclass(frozen=True)
class Stage:
    """One stage and the subsampling after it.

    Attributes:
        groups: The blocks on all tokens, if any, then the evolved ones.
        carry, weight: Of the subsampling attention: s = carry * sub(s) + weight * sub(row). Both 0 when the scores are
            dead after it, and in the last stage.
    """

    groups: tuple[Group, ...]
    carry: float = 0.0
    weight: float = 0.0


def plan(structure: LevitStructure, evolution: LevitEvolution, tradeoff: Sequence[float]) -> list[Stage]:
    """Return the stages in order; class attentions that no later selection depends on are left out.

    Args:
        structure, evolution: Of the recipe.
        tradeoff: t of every attention in the order they run, those of the subsampling too.

    Raises:
        RecipeError: A keep ratio that keeps no patch of a stage.
    """
    keeps = [_keep(ratio, patches) for ratio, patches in zip(*_evolved(structure, evolution))]
    # Scores are alive up to the last stage that selects.
    alive = len(structure.depths) - next((i for i, keep in enumerate(reversed(keeps)) if keep), len(structure.depths))
    stages: list[Stage] = []
    block, learned = 0, iter((1.0, *tradeoff[1:]))  # the first attention sets s = c
    for number, (depth, heads) in enumerate(zip(structure.depths, structure.num_heads)):
        full = evolution.full_blocks if number == 0 else 0
        groups = []
        for first, stop, keep in ((block, block + full, None), (block + full, block + depth, keeps[number])):
            if first == stop:
                continue
            selects_later = number + 1 < alive or (number + 1 == alive and stop < block + depth)
            carry, weights = _unroll(range(first, stop), learned, heads)
            groups.append(Group(first, stop, keep, carry, weights) if selects_later else Group(first, stop, keep))
        block += depth
        if number + 1 == len(structure.depths):
            stages.append(Stage(tuple(groups)))
            continue
        t = next(learned)
        if number + 1 < alive:
            stages.append(Stage(tuple(groups), 1 - t, t * structure.key_dim / structure.embed_dims[number]))
        else:
            stages.append(Stage(tuple(groups)))
    return stages


def _evolved(structure: LevitStructure, evolution: LevitEvolution) -> tuple[list[float], list[int]]:
    """Keep ratio (1 where nothing is selected) and number of patches, one per stage."""
    missing = len(structure.depths) - len(evolution.keep_ratios)
    return [1.0] * missing + list(evolution.keep_ratios), [grid * grid for grid in structure.grids]


def _keep(ratio: float, patches: int) -> int | None:
    if ratio == 1:
        return None
    if int(patches * ratio) == 0:
        raise RecipeError(
            f"keep ratio {ratio:g} keeps no patch of {patches}; the smallest that keeps one is {1 / patches:.4g}."
        )
    return int(patches * ratio)


def _unroll(blocks: range, learned: Iterator[float], heads: int) -> tuple[float, dict[int, float]]:
    """s <- (1 - t) s + t c over the blocks of a group."""
    carry, weights = 1.0, dict[int, float]()
    for block in blocks:
        t = next(learned)
        carry *= 1 - t
        weights = {**{i: weight * (1 - t) for i, weight in weights.items()}, block: t / heads}
    return carry, weights

"""Merged tokens of two models on the same image: how alike their groups of patches are, and how near a tie a difference is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["group_overlap", "merge_distance"]

Array = NDArray[Any]


def group_overlap(a: Array, b: Array) -> float:
    """Compute the mean over patches of |A and B| / |A or B|, with A and B the patches that are in one token with it.

    Args:
        a, b: [N] the token of every patch, numbered in any way.
    """
    one, other = a[:, None] == a, b[:, None] == b
    return float(np.mean((one & other).sum(1) / (one | other).sum(1)))


def merge_distance(scores: Array, before: Array | None, a: Array, b: Array) -> float:
    """Compute how far the reference's scores are from choosing as the other model did, at most, relative to the score at the cut.

    A token that only one of them merges is as far as its best score is from the cut, halfway between the r-th and the next
    best; one that both merge into different tokens, as far as the scores of the two are apart.

    Args:
        scores: [Ta, Tb] of the reference, see :func:`evovit_deploy.models.merging.likeness`.
        before: [N] int, the token of every patch before the merge, the same in both; None before the first.
        a, b: [N] int, the same after it, of the reference and of the other model.
    """
    count_a, count_b = scores.shape
    prefix = int(a.min()) if before is None else int(before.max()) + 1 - count_a - count_b
    before = prefix + np.arange(count_a + count_b) if before is None else before
    into = [_targets(before, after, prefix, count_a, count_b) for after in (a, b)]
    rows = scores.astype(np.float64)
    best = rows.max(1)
    r = int((into[0] >= 0).sum())
    order = np.sort(best)[::-1]
    cut = float(order[max(0, r - 1) : r + 1].mean())
    gaps = [0.0]
    for token, (mine, other) in enumerate(zip(*into)):
        if mine == other:
            continue
        if min(mine, other) < 0:
            gaps.append(abs(best[token] - cut) + best[token] - rows[token, max(mine, other)])
        else:
            gaps.append(abs(rows[token, mine] - rows[token, other]))
    return float(max(gaps) / max(abs(cut), np.finfo(np.float64).tiny))


def _targets(before: Array, after: Array, prefix: int, count_a: int, count_b: int) -> Array:
    """[Ta] the token of B that each of A is merged into, -1 for none."""
    place = np.zeros(prefix + count_a + count_b, np.int64)
    place[before] = after
    first_b = int(after.max()) + 1 - count_b
    found: Array = place[prefix + prefix % 2 :: 2] - first_b
    return np.where(found < 0, -1, found)

"""Token selection as pure functions: `pattern(scores, keep)` decides, the `Selection` it returns moves tokens.

Every pattern is the same function of the scores: token i is kept iff rank_i < K, where

    rank_i = #{j : s_j > s_i, or s_j == s_i and j < i}

and the kept token of rank r stands at place r. They differ in what a runtime has to do: `topk` sorts and gathers, `rank`
compares and gathers, `onehot` compares and multiplies on the tensor cores (P[k, i] = 1 iff rank_i == k). Restoring is a
gather or a GEMM, never a scatter; bypassed tokens keep their place, so nothing has to remember where a token came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .ops import gather_tokens, topk_indices

__all__ = ["PATTERNS", "Selection", "kept_positions", "onehot", "rank", "ranks", "topk"]


@dataclass(frozen=True)
class Selection:
    """A decision about B x N tokens of which K are kept, and how to carry it out.

    Attributes:
        select: [B, N, C] -> [B, K, C], the kept tokens, highest score first.
        restore: ([B, K, C] kept, [B, N, C] all) -> [B, N, C]: kept tokens back at their places, the bypassed as they
            were (placeholder tokens, paper section 3.2). Any dtype, also C = 1.
        kept: () -> [B, N] bool, true where a token is kept.
    """

    select: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor, Tensor], Tensor]
    kept: Callable[[], Tensor]


def ranks(scores: Tensor) -> Tensor:
    """Place of every token in descending order of score, ties to the earlier token.

    Args:
        scores: [B, N] float32.

    Returns:
        [B, N] float32 holding integers (exact below 2^24); float32 because comparing and summing in one type fuses.
    """
    n = scores.shape[1]
    other, own = scores[:, None, :], scores[:, :, None]
    earlier = torch.ones(n, n, dtype=torch.bool, device=scores.device).tril(-1)
    return ((other > own) | ((other == own) & earlier)).float().sum(-1)


def _positions_of(rank_: Tensor, keep: int) -> Tensor:
    """[B, N] ranks -> [B, K] int64, the token at each place: the inverse permutation without a scatter."""
    n = rank_.shape[1]
    place = torch.arange(keep, dtype=rank_.dtype, device=rank_.device)
    token = torch.arange(n, dtype=rank_.dtype, device=rank_.device)
    return ((rank_[:, None, :] == place[:, None]).to(rank_.dtype) * token).sum(-1).long()


def _by_gather(indices: Tensor, rank_of: Callable[[], Tensor], keep: int) -> Selection:
    """Selection from the kept tokens' indices; ``rank_of`` is asked only when something is restored."""

    def restore(kept: Tensor, tokens: Tensor) -> Tensor:
        rank_ = rank_of()
        place = rank_.clamp(max=keep - 1).long()
        return torch.where((rank_ < keep)[..., None], gather_tokens(kept, place), tokens)

    return Selection(lambda tokens: gather_tokens(tokens, indices), restore, lambda: rank_of() < keep)


def topk(scores: Tensor, keep: int) -> Selection:
    """TopK and Gather. Ties go to the earlier token, as ONNX defines for TopK."""
    n = scores.shape[1]
    indices = topk_indices(scores, keep)

    def rank_of() -> Tensor:  # rank of a kept token is its place among the indices, K for the others
        token = torch.arange(n, device=scores.device)
        place = torch.arange(keep, dtype=scores.dtype, device=scores.device)
        hit = (indices[:, None, :] == token[:, None]).to(scores.dtype)
        return (hit * (place - keep)).sum(-1) + keep

    return _by_gather(indices, rank_of, keep)


def rank(scores: Tensor, keep: int) -> Selection:
    """Ranks by comparison, then Gather: no sort, which is slow on a GPU for a few hundred tokens."""
    rank_ = ranks(scores)
    return _by_gather(_positions_of(rank_, keep), lambda: rank_, keep)


def onehot(scores: Tensor, keep: int) -> Selection:
    """Ranks by comparison, then a one-hot GEMM each way: P x selects, P^T x restores. Exact in every float dtype."""
    rank_ = ranks(scores)
    place = torch.arange(keep, dtype=rank_.dtype, device=scores.device)
    hit = rank_[:, None, :] == place[:, None]  # P, [B, K, N]

    def restore(kept: Tensor, tokens: Tensor) -> Tensor:
        moved = hit.to(kept.dtype).transpose(1, 2) @ kept
        return torch.where((rank_ < keep)[..., None], moved, tokens)

    return Selection(lambda tokens: hit.to(tokens.dtype) @ tokens, restore, lambda: rank_ < keep)


PATTERNS: dict[str, Callable[[Tensor, int], Selection]] = {"topk": topk, "rank": rank, "onehot": onehot}


def kept_positions(kept: Tensor, keep: int) -> Tensor:
    """Ascending positions of the kept tokens.

    Args:
        kept: [B, N] bool with exactly ``keep`` true values a row.

    Returns:
        [B, keep] int64. A running count gives each kept token its place, a comparison inverts it; no sort.
    """
    n = kept.shape[1]
    flags = kept.float()
    before = flags @ torch.ones(n, n, device=kept.device).triu(1)
    place = torch.where(kept, before, torch.full_like(before, float(n)))
    return _positions_of(place, keep)

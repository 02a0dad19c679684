"""Token selection as pure functions: `pattern(scores, keep, ops)` decides, the `Selection` it returns moves tokens.

Every pattern is the same function of the scores: token i is kept iff rank_i < K, where

    rank_i = #{j : s_j > s_i, or s_j == s_i and j < i}

and the kept token of rank r stands at place r. They differ in what a runtime has to do: `sort` and `topk` sort and gather,
`rank` compares and gathers, `onehot` compares and multiplies on the tensor cores (P[k, i] = 1 iff rank_i == k). Restoring is
a concatenation, a gather or a GEMM, never a scatter. All but `sort` put the kept tokens back where they were; `sort` puts
them first, which attention and the mean cannot tell apart, and needs no inverse permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .ops import NATIVE, Operators

__all__ = ["PATTERNS", "Selection", "ascending", "kept_positions", "onehot", "rank", "ranks", "sort", "topk"]


@dataclass(frozen=True)
class Selection:
    """A decision about B x N tokens of which K are kept, and how to carry it out.

    Attributes:
        keep: K.
        select: [B, N, C] -> [B, K, C], the kept tokens, highest score first.
        restore: ([B, K, C] kept, [B, N, C] all) -> [B, N, C]: kept tokens joined with the bypassed, which are as they were
            (placeholder tokens, paper section 3.2). Any dtype, also C = 1.
        kept: () -> [B, N] bool, true where a token is kept.
        ordered: [B, N], the scores in descending order, if that is the order in which ``restore`` leaves the tokens; None if
            it puts every token back at its place.
        rest: [B, N, C] -> [B, N - K, C], the bypassed in the order of ``ordered``; None where they are not gathered.
    """

    keep: int
    select: Callable[[Tensor], Tensor]
    restore: Callable[[Tensor, Tensor], Tensor]
    kept: Callable[[], Tensor]
    ordered: Tensor | None = None
    rest: Callable[[Tensor], Tensor] | None = None

    @property
    def in_place(self) -> bool:
        """Whether ``restore`` puts every token back at its place."""
        return self.ordered is None

    def rescore(self, scores: Tensor, update: Callable[[Tensor], Tensor]) -> Tensor:
        """Map [B, N] scores -> the same in the order of ``restore``, with ``update`` applied to those of the kept, [B, K]."""
        if self.ordered is None:
            own = self.select(scores[..., None])[..., 0]
            return self.restore(update(own)[..., None], scores[..., None])[..., 0]
        after = update(self.ordered[:, : self.keep])
        return torch.cat((after, self.ordered[:, self.keep :]), 1)


def ranks(scores: Tensor) -> Tensor:
    """Return the place of every token in descending order of score, ties to the earlier token.

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


def _by_gather(indices: Tensor, rank_of: Callable[[], Tensor], keep: int, ops: Operators) -> Selection:
    """Selection from the kept tokens' indices; ``rank_of`` is asked only when something is restored."""

    def restore(kept: Tensor, tokens: Tensor) -> Tensor:
        rank_ = rank_of()
        place = rank_.clamp(max=keep - 1).long()
        return torch.where((rank_ < keep)[..., None], ops.gather_tokens(kept, place), tokens)

    return Selection(keep, lambda tokens: ops.gather_tokens(tokens, indices), restore, lambda: rank_of() < keep)


def topk(scores: Tensor, keep: int, ops: Operators = NATIVE) -> Selection:
    """Select by TopK and Gather. Ties go to the earlier token, as ONNX defines for TopK."""
    n = scores.shape[1]
    indices = ops.topk_indices(scores, keep)

    def rank_of() -> Tensor:  # rank of a kept token is its place among the indices, K for the others
        token = torch.arange(n, device=scores.device)
        place = torch.arange(keep, dtype=scores.dtype, device=scores.device)
        hit = (indices[:, None, :] == token[:, None]).to(scores.dtype)
        return (hit * (place - keep)).sum(-1) + keep

    return _by_gather(indices, rank_of, keep, ops)


def sort(scores: Tensor, keep: int, ops: Operators = NATIVE) -> Selection:
    """Select by TopK of all tokens: the kept come first, the bypassed after them, and joining them again is a concatenation.

    Ties go to the token that comes first *now*; after an earlier `sort` that is not the order of the image.
    """
    n = scores.shape[1]
    values, order = ops.sort_descending(scores)

    def rest(tokens: Tensor) -> Tensor:
        return ops.gather_tokens(tokens, order[:, keep:])

    def restore(kept: Tensor, tokens: Tensor) -> Tensor:
        return torch.cat((kept, rest(tokens)), 1)

    def kept_mask() -> Tensor:
        token = torch.arange(n, device=scores.device)
        return (order[:, :keep, None] == token).any(1)

    return Selection(keep, lambda tokens: ops.gather_tokens(tokens, order[:, :keep]), restore, kept_mask, values, rest)


def rank(scores: Tensor, keep: int, ops: Operators = NATIVE) -> Selection:
    """Select by ranks from comparison, then Gather: no sort, which is slow on a GPU for a few hundred tokens."""
    rank_ = ranks(scores)
    return _by_gather(_positions_of(rank_, keep), lambda: rank_, keep, ops)


def onehot(scores: Tensor, keep: int, ops: Operators = NATIVE) -> Selection:
    """Select by ranks from comparison, then a one-hot GEMM each way: P x selects, P^T x restores. Exact in every float dtype."""
    rank_ = ranks(scores)
    place = torch.arange(keep, dtype=rank_.dtype, device=scores.device)
    hit = rank_[:, None, :] == place[:, None]  # P, [B, K, N]

    def restore(kept: Tensor, tokens: Tensor) -> Tensor:
        moved = hit.to(kept.dtype).transpose(1, 2) @ kept
        return torch.where((rank_ < keep)[..., None], moved, tokens)

    return Selection(keep, lambda tokens: hit.to(tokens.dtype) @ tokens, restore, lambda: rank_ < keep)


PATTERNS: dict[str, Callable[[Tensor, int, Operators], Selection]] = {
    "sort": sort,
    "topk": topk,
    "rank": rank,
    "onehot": onehot,
}


def kept_positions(kept: Tensor, keep: int) -> Tensor:
    """Return ascending positions of the kept tokens.

    Args:
        kept: [B, N] bool with exactly ``keep`` true values per row.

    Returns:
        [B, keep] int64. A running count gives each kept token its place, a comparison inverts it; no sort.
    """
    n = kept.shape[1]
    flags = kept.float()
    before = flags @ torch.ones(n, n, device=kept.device).triu(1)
    place = torch.where(kept, before, torch.full_like(before, float(n)))
    return _positions_of(place, keep)


def ascending(positions: Tensor) -> Tensor:
    """Return distinct positions in ascending order, by comparison.

    Args:
        positions: [B, K] float32 holding integers (exact below 2^24).

    Returns:
        [B, K] int64.
    """
    place = torch.arange(positions.shape[1], dtype=positions.dtype, device=positions.device)
    hit = (ranks(-positions)[:, None, :] == place[:, None]).to(positions.dtype)
    return (hit * positions[:, None, :]).sum(-1).long()

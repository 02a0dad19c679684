"""Token merging as pure functions (ToMe, ICLR-23, section 3): which tokens become one, and the average that they become.

Patch tokens alternate between two sets, A and B. Every token of A finds the token of B whose key is most like its own (cosine);
the r tokens of A that found the best match are merged into it, as an average by size. Class token and registers take no part.
Afterwards the rest of A stands before B, both in their order, which decides the sets of the next block.

A merge is one number a token, its place afterwards: two tokens at one place are one token. So shapes are fixed, and carrying it
out is one GEMM with a matrix of weights, whose rows sum to 1; nothing is sorted, gathered or scattered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .evolution import ranks
from .ops import NATIVE, Operators

__all__ = ["follow", "likeness", "places", "weights"]

_TINY = 1e-30  # squared; far below the key of any trained model


def likeness(keys: Tensor, prefix: int) -> Tensor:
    """Compute the cosine between the keys of every token of A and every token of B.

    Args:
        keys: [B, T, D] float32, the mean over heads.
        prefix: P, the first tokens, which take no part. Of the others A has the even places and B the odd ones.

    Returns:
        [B, Ta, Tb] float32.
    """
    a, b = keys[:, prefix + prefix % 2 :: 2], keys[:, prefix + 1 - prefix % 2 :: 2]
    # Norms are divided out after the product: TensorRT puts that into the GEMM (two kernels fewer a block than unit vectors).
    return a @ b.transpose(1, 2) * _inverse_norm(a) * _inverse_norm(b).transpose(1, 2)


def _inverse_norm(keys: Tensor) -> Tensor:
    """[B, M, D] -> [B, M, 1]; a key of zeros is like no other."""
    return ((keys * keys).sum(-1, keepdim=True) + _TINY).rsqrt()


def places(scores: Tensor, r: int, prefix: int, ops: Operators = NATIVE) -> Tensor:
    """Decide what is merged.

    Args:
        scores: [B, Ta, Tb] float32, from :func:`likeness`. Ties go to the earlier token.
        r: Tokens merged, from 1 to :func:`.vit.tome_recipe.most_merged`.
        prefix: P.
        ops: The operators to run with.

    Returns:
        [B, T] float32 holding integers below T - r, every token's place afterwards.
    """
    batch, count_a, count_b = scores.shape
    best, target = ops.best(scores)
    merged = ranks(best) < r
    earlier = torch.ones(count_a, count_a, device=scores.device).tril(-1)
    before = (merged.float()[:, None, :] * earlier).sum(
        -1
    )  # those of A that are merged; a product and a sum fuse, a GEMM does not
    first_b = prefix + count_a - r

    def run(start: int, count: int) -> Tensor:
        return torch.arange(start, start + count, dtype=torch.float32, device=scores.device)

    of_a = torch.where(merged, target.float() + first_b, run(prefix, count_a) - before)
    of_b = run(first_b, count_b).expand(batch, -1)
    first, second = (of_b, of_a) if prefix % 2 else (of_a, of_b)
    pairs = min(count_a, count_b)
    joined = torch.stack((first[:, :pairs], second[:, :pairs]), -1).flatten(1)
    return torch.cat((run(0, prefix).expand(batch, -1), joined, first[:, pairs:]), 1)


def weights(place: Tensor, sizes: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return what each token counts in the token that it becomes part of, and the new sizes.

    Args:
        place: [B, T] from :func:`places`.
        sizes: [B, T] float32, input patches in every token.
        r: Tokens merged.

    Returns:
        [B, T - r, T] float32, whose product with the tokens are the new tokens: an unmerged token has one weight of exactly 1.
        [B, T - r] float32, the new sizes.
    """
    new = torch.arange(place.shape[1] - r, dtype=place.dtype, device=place.device)
    parts = (place[:, None, :] == new[:, None]).float() * sizes[:, None, :]
    total = parts.sum(-1)
    return parts / total[..., None], total


def follow(sources: Tensor, place: Tensor) -> Tensor:
    """Return where every input patch is after one more merge.

    Args:
        sources: [B, N] int64, the token of every input patch.
        place: [B, T] from :func:`places`.
    """
    return place.gather(1, sources).long()

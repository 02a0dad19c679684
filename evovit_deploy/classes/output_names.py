"""What the name of an output says it holds. Read before anything heavy is loaded, so there is no array in here."""

from __future__ import annotations

import re

__all__ = ["FEATURES", "PLACES", "TOKENS", "block_of", "is_feature", "is_of_tokens", "output_of"]

FEATURES = ("embedding", "class_token", "patch_tokens")
PLACES = ("kept", "sources")  # outputs that are one a place where tokens are left out or merged: kept_1, kept_2, ...
TOKENS = (*PLACES, "sizes")  # what says which tokens there are


def block_of(name: str) -> int | None:
    """Return the number of the block that ``block_3`` or ``norm_block_3`` is about; None for other outputs."""
    found = re.fullmatch(r"(?:norm_)?block_(0|[1-9][0-9]{0,3})", name)
    return None if found is None else int(found[1])


def is_feature(name: str) -> bool:
    """Return whether an output holds features, which are never class scores, whatever their shape."""
    return name in FEATURES or block_of(name) is not None


def output_of(name: str) -> str:
    """Return what an output is asked for by: ``kept`` for ``kept_2``, ``sources`` for ``sources_1``; all others are their own."""
    return next((place for place in PLACES if name.startswith(f"{place}_")), name)


def is_of_tokens(name: str) -> bool:
    """Return whether an output says what became of tokens, which patches were kept or merged; it is never class scores."""
    return output_of(name) in TOKENS

"""Looking at the scores that a module selects by, without making them an output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

__all__ = ["recorded_scores"]


@contextlib.contextmanager
def recorded_scores(module: Any) -> Iterator[list[NDArray[Any]]]:
    """Record the scores of every selection as a module makes them: [B, N] float32 each, in order; nothing for None.

    The module's ``selection_of(scores, keep)`` is where every selection is decided, by scores [B, P + N] whose first P are
    those of class token and registers. Meanwhile it selects in place, so that every score belongs to the patch at its position.
    """
    scores: list[NDArray[Any]] = []
    if module is None:
        yield scores
        return
    decide, prefix = module.selection_of, module.structure.prefix_tokens

    def selection_of(given: Any, keep: int) -> Any:
        scores.append(given[:, prefix:].float().cpu().numpy())
        return decide(given, keep)

    module.selection_of, pattern = selection_of, module.pattern
    module.pattern = "topk" if pattern == "sort" else pattern
    try:
        yield scores
    finally:
        module.pattern = pattern
        del module.selection_of  # the method of the class shows again

"""From a model's outputs to classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOT_FINITE", "Ranking", "probabilities", "ranking"]

Array = NDArray[Any]
Ranking = list[tuple[int, float]]  # (class, probability), the most probable first
NOT_FINITE = "the model's output is not finite (NaN or infinity)."


def probabilities(outputs: dict[str, Array]) -> Array:
    """Return [B, classes] float64: the softmax of the logits, or the model's own probabilities where it gives no logits."""
    if "logits" not in outputs and "probabilities" in outputs:
        return outputs["probabilities"].astype(np.float64)
    logits = outputs.get("logits", next(iter(outputs.values()))).astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinities; the caller names the image
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        result: Array = exponentials / exponentials.sum(1, keepdims=True)
    return result


def ranking(row: Array, count: int) -> Ranking:
    """Return the ``count`` most probable classes of one image; equal probabilities stay in class order.

    Args:
        row: [classes] probabilities.
        count: How many; all when there are fewer.
    """
    return [(i, float(row[i])) for i in (-row).argsort(kind="stable")[:count].tolist()]

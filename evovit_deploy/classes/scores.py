"""From a model's outputs to classes: the one rule for which output holds the scores, probabilities, ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .output_names import is_feature, is_of_tokens, output_of

__all__ = [
    "NOT_FINITE",
    "Ranking",
    "no_scores",
    "probabilities",
    "ranking",
    "scores_of",
    "scores_output",
]

Array = NDArray[Any]
Ranking = list[tuple[int, float]]  # (class, probability), the most probable first
NOT_FINITE = "the model's output is not finite (NaN or infinity)."


def scores_output(candidates: Iterable[str]) -> str | None:
    """Choose the output that holds the class scores: ``logits``, else ``probabilities``, else the only candidate.

    Args:
        candidates: Names of the outputs that could hold them: floating point, [B, classes]. Features and sizes of tokens count
            for nothing.

    Returns:
        None when there is no candidate, or several without either name.
    """
    names = tuple(name for name in candidates if not is_feature(name) and not is_of_tokens(name))
    for name in ("logits", "probabilities"):
        if name in names:
            return name
    return names[0] if len(names) == 1 else None


def scores_of(outputs: Mapping[str, Array], model: str = "the model") -> tuple[str, Array]:
    """Find the output that holds the class scores, by :func:`scores_output`: its name and [B, classes].

    Args:
        outputs: Output name -> array with B rows, as an engine gives them.
        model: Its name, for the message.

    Raises:
        InputError: No output holds them, or several could.
    """
    name = scores_output(n for n, value in outputs.items() if value.ndim == 2 and value.dtype.kind == "f")
    if name is None:
        raise no_scores(model, outputs)
    return name, outputs[name]


def no_scores(model: str, outputs: Iterable[str]) -> InputError:
    """Return the error for a model whose outputs (names) hold no class scores, or leave open which one does."""
    names = tuple(outputs)
    if any(map(is_feature, names)) and all(is_feature(name) or is_of_tokens(name) for name in names):
        return InputError(
            f"{model} gives no class scores, it gives features: {', '.join(names)}. Engine.open(FILE)(images) returns them, "
            "and a service answers POST /v2/models/NAME/infer with them (docs/embeddings.md). For classes, export a model that "
            "has a head with --outputs logits."
        )
    if all(map(is_of_tokens, names)):
        return InputError(
            f"{model} gives no class scores: its outputs are {', '.join(names)}. Export it again with --outputs logits or "
            f"--outputs logits,{output_of(names[0])}."
        )
    return InputError(
        f"{model} does not say which of its outputs holds the class scores: {', '.join(names)}. It is `logits`, else "
        "`probabilities`, else the only one that is floating point and [B, classes]. Name it so when you export."
    )


def probabilities(outputs: Mapping[str, Array]) -> Array:
    """Return [B, classes] float64: the softmax of the logits, or the model's own probabilities where it gives no logits.

    Raises:
        InputError: No output holds the class scores, see :func:`scores_of`.
    """
    name, scores = scores_of(outputs)
    scores = scores.astype(np.float64)
    if name == "probabilities":
        return scores
    with np.errstate(invalid="ignore"):  # of infinities; the caller names the image
        exponentials = np.exp(scores - scores.max(1, keepdims=True))
        result: Array = exponentials / exponentials.sum(1, keepdims=True)
    return result


def ranking(row: Array, count: int) -> Ranking:
    """Return the ``count`` most probable classes of one image; equal probabilities stay in class order.

    Args:
        row: [classes] probabilities.
        count: How many; all when there are fewer.
    """
    return [(i, float(row[i])) for i in (-row).argsort(kind="stable")[:count].tolist()]

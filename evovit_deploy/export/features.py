"""Parity of features: embeddings and tokens of two models, number by number and vector by vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes.output_names import is_feature
from ..errors import InputError
from .gates import FeatureMatch

__all__ = ["compare_features", "match_of"]

Array = NDArray[Any]


def compare_features(
    reference: Mapping[str, Array], other: Mapping[str, Array], names: Sequence[str]
) -> dict[str, FeatureMatch]:
    """Compare every output that both models give and that holds features.

    The error is judged as that of logits is, by the largest value of its image. A vector may be small beside others of its
    image, so each is also held by its direction, which is what a search or a head on top goes by.

    Args:
        reference, other: Name -> [n, C], or [n, N, C] for tokens.
        names: Of the images. One that is not finite is left out here; it is reported as such.

    Raises:
        InputError: Shapes that differ.
    """
    found: dict[str, FeatureMatch] = {}
    for name in (name for name in reference if is_feature(name) and name in other):
        a, b = reference[name], other[name]
        if a.shape != b.shape:
            raise InputError(
                f"the models cannot be compared: {name} of an image is {list(a.shape[1:])} in one and {list(b.shape[1:])} in "
                "the other."
            )
        flat = (len(a), -1)
        sound = np.flatnonzero(np.isfinite(a.reshape(flat)).all(1) & np.isfinite(b.reshape(flat)).all(1))
        if not len(sound):
            continue
        found[name] = match_of(
            a[sound].astype(np.float64), b[sound].astype(np.float64), [names[image] for image in sound.tolist()]
        )
    return found


def match_of(a: Array, b: Array, names: Sequence[str]) -> FeatureMatch:
    """Compare vectors, or sets of them, an image each; scores of classes too.

    Args:
        a, b: [n, ..., C] float64 of the reference and of the other model, all finite.
        names: Of the images.
    """
    flat = (len(a), -1)
    errors, scales = np.abs(a - b).reshape(flat).max(1), np.maximum(1.0, np.abs(a).reshape(flat).max(1))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = np.where(lengths > 0, (a * b).sum(-1) / np.where(lengths > 0, lengths, 1), (a == b).all(-1))
    worst = int((errors / scales).argmax())
    return FeatureMatch(
        float(errors.max()),
        float((errors / scales).max()),
        float(scales[worst]),
        names[worst],
        float(cosine.min()),
    )

"""Parity: are two models the same function, by how much not, and do they keep the same tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classes.output_names import PLACES, output_of
from ..classes.scores import scores_of
from ..errors import InputError
from ..models.groups import group_overlap, merge_distance
from ..recipes import Tolerance
from .features import compare_features, match_of
from .gates import REFERENCE, CutFlip, ParityReport

__all__ = ["compare", "jaccard"]

Array = NDArray[Any]
TIE = 1e-5  # of the score at the cut: what the order of a sum changes in FP32


def compare(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    tolerance: Tolerance,
    *,
    names: Sequence[str] = (),
    scores: Mapping[str, Array] | None = None,
    settled: Mapping[str, Array] | None = None,
) -> ParityReport:
    """Compare the outputs of two models on the same images, and judge them gate by gate.

    Class scores. Where both give logits these are compared; where one gives probabilities only, log-probabilities less their mean
    over the classes, which are the logits less theirs. With a and b the scores of an image and D = b - a:

    - ``error``: max |D| <= ``max_abs`` * max(1, max |a|), for every image. Where the kept sets differ, a is from ``settled``:
      the reference with the other's patches, so that rounding is judged here and the choice of patches below.
    - ``top1_margin``: a flip of the top-1 from class p to q means a_p - a_q <= D_q - D_p <= 2 max |D|. That holds for every flip,
      with the error of its own image, and would prove nothing. So the error is taken from the other images: the reference's
      margin (largest a less second largest) must be at most 2 E, with E = max |D| over the images whose top-1 agrees. An image
      whose kept set differs near the cut (see below) is excused: another patch was computed in full, by a near-tie.

    Kept sets. The mean Jaccard index of each stage, and where the reference's scores s are known, ``cut``: every patch j that
    only one of the models keeps has |s_j - c| <= ``max_abs`` * |c|, where c lies halfway between the K-th and the (K+1)-th
    largest score. Only the first stage that differs in an image is judged so, since it changes the scores of all later ones.
    An image where that stage differs by ties only, |s_j - c| <= 1e-5 |c|, counts as the same for the Jaccard index: FP32 itself
    does not decide a tie, and flat images have them.

    Merged tokens are judged the same way: the Jaccard index of the groups of patches (:func:`.groups.group_overlap`), and how
    near a tie the first difference is (:func:`.groups.merge_distance`).

    Features. Those that both give, by the same ``max_abs``, and by the cosine of every single vector: :mod:`.features`.

    Args:
        reference, other: Class scores (``logits`` or ``probabilities``, [n, classes]), features ([n, C] or [n, N, C]) and, for
            the kept sets, ``kept_1`` [n, K] int64, ...
        tolerance: What to accept.
        names: Of the images.
        scores: ``kept_1`` -> the reference's scores [n, N] float32 that the set was chosen by, ...; ``sources_1`` [n, Ta, Tb].
        settled: The reference's outputs when it keeps the patches that the other model kept; ``reference`` if None.

    Raises:
        InputError: Different numbers of classes, or nothing to compare.
    """
    stages = [name for name in reference if output_of(name) in PLACES and name in other]
    count = len(next(iter(reference.values())))
    labels = tuple(names) or tuple(f"image {number}" for number in range(1, count + 1))
    report = _compare_scores(reference, reference if settled is None else settled, other, tolerance, labels)
    features = compare_features(reference if settled is None else settled, other, labels)
    if report.compared is None and not stages and not features:
        raise InputError(
            f"there is nothing to compare: the reference gives {', '.join(reference)}, the other model {', '.join(other)}. "
            "Export both with --outputs logits or --outputs logits,kept."
        )
    overlaps, cut, moved = _compare_kept(reference, other, scores or {}, stages)
    near = {labels[image] for image, distance in moved.items() if distance <= tolerance.max_abs}
    flips = tuple(dataclasses.replace(flip, near_cut=flip.image in near) for flip in report.flips)
    return dataclasses.replace(report, flips=flips, jaccard=overlaps, cut=cut, features=features)


def _compare_scores(
    reference: Mapping[str, Array],
    settled: Mapping[str, Array],
    other: Mapping[str, Array],
    tolerance: Tolerance,
    names: tuple[str, ...],
) -> ParityReport:
    """The part of :func:`compare` that is about class scores."""
    broken = tuple(
        f"{who}{names[i]}"
        for who, outputs in (("", other), (REFERENCE, reference))
        for i in np.flatnonzero(~_finite_rows(outputs, len(names)))
    )
    empty = ParityReport(
        len(names), None, None, None, None, None, "", None, None, (), 0.0, broken, {}, {}, tolerance, names
    )
    pair, alike = _comparable(reference, other), _comparable(settled, other)
    if pair is None or alike is None:
        return empty
    (compared, own, b), (_, a, _) = pair, alike
    sound = np.flatnonzero(np.isfinite(own).all(1) & np.isfinite(a).all(1) & np.isfinite(b).all(1))
    if not len(sound):
        return dataclasses.replace(empty, compared=compared)
    own, a, b = own[sound], a[sound], b[sound]
    errors = np.abs(a - b).max(1)
    same = own.argmax(1) == b.argmax(1)
    best = np.sort(own, axis=1)[:, ::-1]
    margins = best[:, 0] - best[:, 1] if own.shape[1] > 1 else np.zeros(len(own))
    return dataclasses.replace(
        empty,
        compared=compared,
        mean_abs=float(np.abs(a - b).mean()),
        top1=float(same.mean()),
        flips=tuple(CutFlip(names[sound[i]], float(margins[i]), float(errors[i])) for i in np.flatnonzero(~same)),
        flip_limit=2 * float(errors[same].max()) if same.any() else 0.0,
        **dataclasses.asdict(match_of(a, b, [names[image] for image in sound])),
    )


def _comparable(reference: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[str, Array, Array] | None:
    """What is compared, and both sides of it [n, classes] float64; None where a side gives no class scores."""
    found = []
    for outputs in (reference, other):
        try:
            found.append(scores_of(outputs))
        except InputError:
            return None
    (name_a, a), (name_b, b) = found
    if a.shape != b.shape:
        raise InputError(f"the models have {a.shape[1]} and {b.shape[1]} classes and cannot be compared.")
    if "probabilities" not in (name_a, name_b):
        return "logits", a.astype(np.float64), b.astype(np.float64)
    # A probability that underflows in the type of either side says no more than that it is that small.
    floor = max(float(np.finfo(value.dtype).tiny) for name, value in found if name == "probabilities")
    return "log_probabilities", _log_probabilities(name_a, a, floor), _log_probabilities(name_b, b, floor)


def _log_probabilities(name: str, scores: Array, floor: float) -> Array:
    """[n, classes] logits or probabilities -> log-probabilities of at least log ``floor``, less their mean over the classes."""
    values = scores.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is reported as such
        if name != "probabilities":
            values = np.exp(values - values.max(1, keepdims=True))
            values = values / values.sum(1, keepdims=True)
        logs = np.log(np.where(values < floor, floor, values))
        result: Array = logs - logs.mean(1, keepdims=True)
    return result


def _finite_rows(outputs: Mapping[str, Array], count: int) -> Array:
    """[n] bool: whether every output of an image is finite."""
    good = np.ones(count, bool)
    for value in outputs.values():
        good &= np.isfinite(value.reshape(count, -1)).all(1)
    return good


def jaccard(a: Array, b: Array) -> float:
    """Return the mean over images of |A and B| / |A or B|, for index sets [n, K]."""
    return float(np.mean([_overlap(row_a, row_b) for row_a, row_b in zip(a, b)]))


def _overlap(a: Array, b: Array) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def _compare_kept(
    reference: Mapping[str, Array], other: Mapping[str, Array], scores: Mapping[str, Array], stages: Sequence[str]
) -> tuple[dict[str, float], dict[str, float], dict[int, float]]:
    """The part of :func:`compare` that is about kept sets: ``jaccard`` and ``cut`` by stage, and the distance from the cut of
    every image with different sets.
    """
    overlaps: dict[str, list[float]] = {stage: [] for stage in stages}
    cut = {stage: 0.0 for stage in stages if stage in scores}
    moved: dict[int, float] = {}
    for image in range(len(reference[stages[0]]) if stages else 0):
        sets = {stage: (reference[stage][image], other[stage][image]) for stage in stages}
        first = next((stage for stage, (a, b) in sets.items() if not np.array_equal(a, b)), None)
        merged = output_of(stages[0]) == "sources"
        tie = False
        if first is not None and first in cut:
            earlier = sets[stages[stages.index(first) - 1]][0] if first != stages[0] else None
            own = scores[first][image]
            moved[image] = merge_distance(own, earlier, *sets[first]) if merged else _distance(own, *sets[first])
            cut[first], tie = max(cut[first], moved[image]), moved[image] <= TIE
        for stage, (a, b) in sets.items():
            overlaps[stage].append(1.0 if tie else group_overlap(a, b) if merged else _overlap(a, b))
    return {stage: float(np.mean(values)) for stage, values in overlaps.items()}, cut, moved


def _distance(scores: Array, kept: Array, other: Array) -> float:
    """How far the patches that are in one set only are from the cut of the scores [N], at most, relative to the score there;
    what was not there to choose from has the score NaN.
    """
    row = scores.astype(np.float64)
    cut = np.sort(row[~np.isnan(row)])[::-1][len(kept) - 1 : len(kept) + 1].mean()
    distance = np.abs(row[np.setxor1d(kept, other)] - cut).max()
    return float(distance / max(abs(cut), np.finfo(np.float64).tiny))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from evovit_deploy.explain.maps import Look, Selected, jaccard
from evovit_deploy.explain.summary import Summary

masks = arrays(bool, 16)


def look(*kept: list[int], grid: int = 2, best: int = 0) -> Look:
    parts = []
    for positions in kept:
        mask = np.zeros(grid * grid, bool)
        mask[positions] = True
        parts.append(Selected(grid, mask))
    return Look(tuple(parts), [(best, 0.9)])


@given(masks, masks)
def test_jaccard_is_that_of_sets(a: np.ndarray, b: np.ndarray) -> None:  # type: ignore[type-arg]
    first, second = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    assert jaccard(a, b) == (len(first & second) / len(first | second) if first | second else 1.0)
    assert jaccard(a, a) == 1


def test_overlap_frequency_and_stability() -> None:
    summary = Summary()
    summary.add(look([0, 1, 2], [0, 1]), look([0, 1, 2], [0, 3]))
    summary.add(look([0, 1, 2], [2, 3]), look([0, 1, 3], [2, 3], best=1))
    document = summary.to_dict([2, 2], compared=True)
    first, second = document["selections"]
    assert (first["frequency"], first["kept"]) == ([1, 1, 1, 0], 3)
    assert second["frequency"] == [0.5, 0.5, 0.5, 0.5]
    assert (first["stability"], second["stability"]) == (pytest.approx((1 + 0.5) / 2), pytest.approx((1 / 3 + 1) / 2))
    assert (first["identical"], second["identical"], document["same_class"]) == (1, 1, 1)
    assert document["overlap"] == [{"earlier": "kept_1", "later": "kept_2", "share": 0.75, "chance": 0.75}]


def test_selections_on_different_grids_are_not_compared() -> None:
    summary = Summary()
    summary.add(Look((look([0]).selections[0], look([0], grid=1).selections[0]), []))
    document = summary.to_dict([2, 1], compared=False)
    assert (document["overlap"], document["same_class"]) == ([], None)
    assert document["selections"][0]["stability"] is None


def test_answers_that_are_not_finite_are_not_the_same_class() -> None:
    summary = Summary()
    nothing = Look(look([0]).selections, [])
    summary.add(nothing, nothing)
    assert summary.same_class == 0

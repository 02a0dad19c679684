"""Outcomes of a sweep, the front among them, and the point that a budget or a largest drop picks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["FULL", "Outcome", "choose", "comparable", "front"]

FULL = "full"  # name of the candidate that keeps every patch


@dataclass(frozen=True)
class Outcome:
    """What one candidate did, beside the full model in the same runs.

    Attributes:
        key: What it belongs to: weights, recipe, data and settings.
        name: Of the candidate.
        schedule, keep_ratios: Of its recipe; the ratios one per stage, none where tokens are merged.
        latency_ms: Median latency of a call, ms; ``batch`` images. Candidates are measured one after another, so it says little
            beside another candidate's; see :func:`comparable`.
        batch: Images per call.
        images_per_second: One call after the other.
        speedup, speedup_low, speedup_high: Against the full model, interleaved with it, with a 95% interval.
        stable: Whether the measurement settled.
        images: Images evaluated.
        agreement: Share of images that it puts into the same class as the full model.
        top1, top1_low, top1_high: With a 95% Wilson interval; None without labels.
        drop: Points of top-1 below the full model (negative is a gain); without labels, points of disagreement.
        mcnemar_p: Of the difference; None without labels.
        full_ms: Median latency of the full model in the same turns, ms; None in older records.
        macs, full_macs: Multiply-accumulates for one image, its own and the full model's; None in older records, and where they
            cannot be counted.
        method: What leaves tokens out, such as ``evo``; empty in older records.
    """

    key: str
    name: str
    schedule: str
    keep_ratios: tuple[float, ...]
    latency_ms: float
    batch: int
    images_per_second: float
    speedup: float
    speedup_low: float | None
    speedup_high: float | None
    stable: bool | None
    images: int
    agreement: float
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    drop: float
    mcnemar_p: float | None
    full_ms: float | None = None
    macs: float | None = None
    full_macs: float | None = None
    method: str = ""


def comparable(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Key -> latency of a call in ms, all as if measured in the same minutes: the full model's, divided by the speedup.

    The full model's is the median over all its measurements in the sweep, alone and beside every candidate. A machine that was
    slower during one candidate was slower for the full model beside it too, so the speedups compare where latencies do not.

    Args:
        outcomes: All of the sweep; the full model is the one called so.
    """
    full = [one.latency_ms for one in outcomes if one.name == FULL]
    beside = [one.full_ms for one in outcomes if one.full_ms is not None and one.name != FULL]
    middle = statistics.median([*full, *beside])
    return {one.key: middle / one.speedup for one in outcomes}


def front(outcomes: Sequence[Outcome], gain: Callable[[Outcome], float] = lambda one: one.speedup) -> list[Outcome]:
    """Find those that no other beats in one of speedup and drop without losing in the other, fastest last.

    Args:
        outcomes: Of one sweep.
        gain: What counts in place of the speedup; more is better.
    """
    found = [
        one
        for one in outcomes
        if not any(
            gain(other) >= gain(one) and other.drop <= one.drop and (gain(other), other.drop) != (gain(one), one.drop)
            for other in outcomes
        )
    ]
    return sorted(found, key=lambda one: (gain(one), one.drop))


def choose(outcomes: Sequence[Outcome], *, budget_ms: float | None = None, max_drop: float | None = None) -> Outcome:
    """Return the point to deploy.

    Args:
        outcomes: All of the sweep.
        budget_ms: Largest median latency of a call, as :func:`comparable` gives it.
        max_drop: Largest drop, points.

    Returns:
        With ``max_drop`` the fastest of those within both bounds, else the one of least drop within the budget; of equals
        the faster.

    Raises:
        InputError: No candidate is within the bounds; the message names the nearest.
    """
    latency = comparable(outcomes)
    quick = [one for one in outcomes if budget_ms is None or latency[one.key] <= budget_ms]
    if not quick:
        nearest = min(outcomes, key=lambda one: latency[one.key])
        raise InputError(
            f"no candidate is within {budget_ms:g} ms: the fastest, {nearest.name}, takes {latency[nearest.key]:.3g} ms per call "
            f"of {nearest.batch}. Give smaller --ratios or a larger --budget."
        )
    good = [one for one in quick if max_drop is None or one.drop <= max_drop]
    if not good:
        nearest = min(quick, key=lambda one: one.drop)
        within = "" if budget_ms is None else f" within {budget_ms:g} ms"
        raise InputError(
            f"no candidate{within} drops by {max_drop:g} points at most: the nearest, {nearest.name}, drops by "
            f"{nearest.drop:.3g}. Give larger --ratios, a larger --max-drop or a larger --budget."
        )
    if max_drop is not None:
        return min(good, key=lambda one: (-one.speedup, one.drop))
    return min(good, key=lambda one: (one.drop, -one.speedup))

"""Measures of classification, counted image by image so that memory does not grow with the number of images.

All of them are closed forms of a few lines; the tests hold them against scipy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from ..classes.scores import Ranking

__all__ = ["BINS", "TOP", "Accuracy", "Calibration", "Pair", "Share", "mcnemar", "wilson"]

BINS = 15  # equal bins of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"
TOP = 5


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the Wilson score interval of a share (E. B. Wilson, 1927); (0, 1) when nothing was counted.

    It stays within 0 and 1, and does not collapse to a point at 0 or all hits.
    """
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, z2 = hits / count, z * z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z / (1 + z2 / count) * (share * (1 - share) / count + z2 / (4 * count * count)) ** 0.5
    # Exact at the ends, where rounding could leave 1e-17.
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == count else centre + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test: are two models right equally often, on the same images?

    Images on which both are right or both wrong say nothing; of the others each model should win half: a binomial test.

    Args:
        only_first, only_second: Images that only that model classified rightly.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    ways = term = 1
    for i in range(fewer):
        term = term * (count - i) // (i + 1)
        ways += term
    return min(1.0, 2 * ways / 2**count)


@dataclass(frozen=True)
class Share:
    """How many of how many, with a 95% Wilson interval."""

    hits: int
    count: int

    @property
    def value(self) -> float | None:
        """The share, or None of nothing."""
        return self.hits / self.count if self.count else None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return a JSON-ready form."""
        low, high = wilson(self.hits, self.count)
        return {"value": self.value, "low": low, "high": high, "hits": self.hits, "count": self.count}


@dataclass
class Calibration:
    """Expected calibration error: mean over images of |accuracy - confidence| of their bin of confidence."""

    counts: list[int] = field(default_factory=lambda: [0] * BINS)
    hits: list[int] = field(default_factory=lambda: [0] * BINS)
    confidence: list[float] = field(default_factory=lambda: [0.0] * BINS)

    def add(self, confidence: float, right: bool) -> None:
        """Count one image; bin b holds b / BINS < confidence <= (b + 1) / BINS."""
        number = next((b for b in range(BINS) if confidence <= (b + 1) / BINS), BINS - 1)
        self.counts[number] += 1
        self.hits[number] += right
        self.confidence[number] += confidence

    @property
    def error(self) -> float | None:
        """ECE in [0, 1], or None of nothing."""
        if not sum(self.counts):
            return None
        return sum(abs(h - c) for h, c in zip(self.hits, self.confidence)) / sum(self.counts)


@dataclass
class Accuracy:
    """Top-1, top-5, per class and calibration of one model."""

    num_classes: int
    images: Counter[int] = field(default_factory=Counter)
    top1: Counter[int] = field(default_factory=Counter)
    top5: Counter[int] = field(default_factory=Counter)
    mistakes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (class, taken for) -> images
    calibration: Calibration = field(default_factory=Calibration)

    def add(self, label: int, ranking: Ranking) -> None:
        """Count one image: its class and its most probable classes."""
        best, confidence = ranking[0]
        self.images[label] += 1
        self.top1[label] += best == label
        self.top5[label] += label in [number for number, _ in ranking[:TOP]]
        if best != label:
            self.mistakes[label, best] += 1
        self.calibration.add(confidence, best == label)

    def share(self, hits: Counter[int], label: int | None = None) -> Share:
        """Return the share of ``self.top1`` or ``self.top5`` in one class, or in all."""
        if label is None:
            return Share(hits.total(), self.images.total())
        return Share(hits[label], self.images[label])

    def hits_with(self, labels: Mapping[int, int]) -> int:
        """Right top-1 answers if every class were another; classes that ``labels`` does not hold stay what they are."""
        hits = sum(count for label, count in self.top1.items() if labels.get(label, label) == label)
        return hits + sum(count for (label, best), count in self.mistakes.items() if labels.get(label, label) == best)

    def worst_mistake(self, label: int) -> int | None:
        """Return the class that this one was most often taken for, or None."""
        taken = {wrong: count for (right, wrong), count in self.mistakes.items() if right == label}
        return max(taken, key=lambda wrong: (taken[wrong], -wrong)) if taken else None


@dataclass
class Pair:
    """Two models on the same images: the one evaluated, and the reference."""

    agree: int = 0
    count: int = 0
    only_model: int = 0
    only_reference: int = 0

    def add(self, label: int | None, model: Ranking, reference: Ranking) -> bool:
        """Count one image; true if the most probable classes differ."""
        mine, theirs = model[0][0], reference[0][0]
        self.count += 1
        self.agree += mine == theirs
        self.only_model += mine == label != theirs
        self.only_reference += theirs == label != mine
        return mine != theirs

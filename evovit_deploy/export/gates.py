"""What a comparison of two models found, and the gates that it has to pass."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..classes.output_names import output_of
from ..recipes import Tolerance

__all__ = ["CutFlip", "FeatureMatch", "Gate", "ParityReport"]

REFERENCE = "reference: "  # before the name of an image in which the reference is not finite
# Words for what became of tokens, by the output that says it.
WHAT = {"kept": "patches", "sources": "groups"}
CHANGED = {"kept": "swapped", "sources": "merged otherwise"}
ONE = {"kept": "a patch", "sources": "a merge"}


@dataclass(frozen=True)
class Gate:
    """One condition of a proof.

    Attributes:
        name: ``finite``, ``overflow``, ``error``, ``cosine``, ``top1_margin``, ``top1``, ``kept_1`` (Jaccard index),
            ``kept_1_cut``, ...; of an output that holds features ``embedding_error``, ``embedding_cosine``.
        found: What was found.
        limit: What is accepted.
        at_least: Whether ``limit`` is the smallest value accepted; else it is the largest.
        what: In words.
        where: The image with the worst value, where there is one.
    """

    name: str
    found: float
    limit: float
    at_least: bool
    what: str
    where: str = ""

    @property
    def passed(self) -> bool:
        """Whether what was found is within the limit; NaN never is."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**dataclasses.asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class CutFlip:
    """An image whose top-1 class differs.

    Attributes:
        image: Its name.
        margin: The reference's largest logit less its second largest.
        error: Largest error of a logit in this image.
        near_cut: Whether its kept set differs by patches near the cut, which excuses it.
    """

    image: str
    margin: float
    error: float
    near_cut: bool = False


@dataclass(frozen=True)
class FeatureMatch:
    """How an output that holds features, vectors of C channels, compares.

    Attributes:
        max_abs: Largest absolute difference.
        error: Largest over the images of (largest absolute difference / ``scale`` of the image).
        scale: Of the image that ``error`` is from: its largest absolute reference value, or 1 if that is larger.
        worst: Name of that image.
        cosine: Smallest cosine similarity of a vector: of an image, or of any of its patches.
    """

    max_abs: float
    error: float
    scale: float
    worst: str
    cosine: float


@dataclass(frozen=True)
class ParityReport:
    """How two models compare.

    Attributes:
        images: Number of images.
        compared: ``logits``; ``log_probabilities`` where a model gives probabilities only; None where one gives no class scores,
            and then only the kept sets are compared.
        max_abs, mean_abs: Absolute difference of the logits.
        error: Largest over the images of (largest absolute difference / ``scale`` of the image); held against
            ``tolerance.max_abs``.
        scale: Of the image that ``error`` is from: its largest absolute reference logit, or 1 if that is larger.
        worst: Name of that image.
        cosine: Smallest cosine similarity of an image's logits.
        top1: Share of images whose top-1 class agrees.
        flips: The images whose top-1 class differs.
        flip_limit: The largest margin that excuses one: twice the largest logit error in the images whose class agrees.
        not_finite: What was not finite: "reference: white", ...
        jaccard: Stage name -> mean Jaccard index of the kept sets, ties aside; empty when not both models give them.
        cut: Stage name -> how far a patch that only one of the models keeps is from the cut, at most, relative to the score
            there; see :func:`.parity.compare`. Empty where neither model tells its scores.
        tolerance: What is accepted.
        names: Of the images.
        differences: How the two files differ where that changes what they compute: keep ratios, weights, ...
        features: Name of an output that both give and that holds features -> how it compares.
        overflows: What is beyond FP16 (65504) within the graph, in the order of computation, such as
            "blocks.3/fc1/MatMul: 9.1e+04, white"; None where that was not looked at.
    """

    images: int
    compared: str | None
    max_abs: float | None
    mean_abs: float | None
    error: float | None
    scale: float | None
    worst: str
    cosine: float | None
    top1: float | None
    flips: tuple[CutFlip, ...]
    flip_limit: float
    not_finite: tuple[str, ...]
    jaccard: dict[str, float]
    cut: dict[str, float]
    tolerance: Tolerance
    names: tuple[str, ...] = ()
    differences: tuple[str, ...] = field(default=())
    overflows: tuple[str, ...] | None = None
    features: dict[str, FeatureMatch] = field(default_factory=dict)

    @property
    def largest_error(self) -> float | None:
        """The largest relative error of class scores and features; None where neither was compared."""
        found = [match.error for match in self.features.values()]
        return max(found if self.error is None else (self.error, *found), default=None)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Every condition that applies, in the order in which they are judged."""
        t = self.tolerance
        first = self.not_finite[0] if self.not_finite else ""
        gates = [Gate("finite", float(len(self.not_finite)), 0.0, False, "images that are not finite", first)]
        if self.overflows is not None:
            where = self.overflows[0].partition(":")[0] if self.overflows else ""
            gates.append(Gate("overflow", float(len(self.overflows)), 0.0, False, "values inside beyond FP16", where))
        if self.error is not None and self.cosine is not None and self.top1 is not None:
            what = self._quantity
            gates.append(Gate("error", self.error, t.max_abs, False, f"{what} error, relative", self.worst))
            gates.append(
                Gate(
                    "cosine",
                    self.cosine,
                    t.min_cosine,
                    True,
                    f"cosine of the {'logits' if what == 'logit' else 'log-probabilities'}",
                )
            )
            open_flips = [flip for flip in self.flips if not flip.near_cut]
            widest = max(open_flips, key=lambda flip: flip.margin, default=CutFlip("", 0.0, 0.0))
            excused = len(self.flips) - len(open_flips)
            text = "top-1 differs in no image"
            if self.flips:
                cut = f", {excused} of them by a near-tie at the cut" if excused else ""
                text = f"top-1 differs in {len(self.flips)}{cut}: the reference leads by"
            gates.append(Gate("top1_margin", widest.margin, self.flip_limit, False, text, widest.image))
            if t.min_top1 > 0:
                gates.append(Gate("top1", self.top1, t.min_top1, True, "top-1 agreement"))
        for name, match in self.features.items():
            gates.append(Gate(f"{name}_error", match.error, t.max_abs, False, f"{name} error, relative", match.worst))
            gates.append(Gate(f"{name}_cosine", match.cosine, t.min_cosine, True, f"cosine of {name}"))
        jaccard, judged = self.jaccard, self.cut
        if any(output_of(stage) == "sources" for stage in jaccard):
            # What was merged once stays merged: the last groups hold all merges, and the first difference is the one judged.
            jaccard = dict(list(jaccard.items())[-1:])
            judged = dict(sorted(judged.items(), key=lambda one: -one[1])[:1])
        for stage, value in jaccard.items():
            gates.append(Gate(stage, value, t.min_jaccard, True, f"{stage}: same {WHAT[output_of(stage)]} (Jaccard)"))
        for stage, value in judged.items():
            gates.append(
                Gate(
                    f"{stage}_cut",
                    value,
                    t.max_abs,
                    False,
                    f"{stage}: {CHANGED[output_of(stage)]}, off the cut by",
                )
            )
        return tuple(gates)

    @property
    def undefined(self) -> tuple[str, ...]:
        """Names of the images in which the reference itself is not finite."""
        return tuple(name.removeprefix(REFERENCE) for name in self.not_finite if name.startswith(REFERENCE))

    @property
    def _quantity(self) -> str:
        return "logit" if self.compared == "logits" else "log-probability"

    @property
    def failure(self) -> str:
        """The first gate that does not hold, in words; empty when all do."""
        gate = next((gate for gate in self.gates if not gate.passed), None)
        if gate is None:
            return ""
        if gate.name == "finite" and (own := self.undefined):
            return f"the reference itself is not finite in {len(own)} of {self.images} images ({'; '.join(own[:3])})"
        if gate.name == "finite":
            inside = f". Overflow begins at {self.overflows[0]}" if self.overflows else ""
            return f"the outputs are not finite ({'; '.join(self.not_finite[:3])}){inside}"
        if gate.name == "overflow":
            assert self.overflows
            return f"{len(self.overflows)} values inside the graph are beyond FP16 (65504), the first at {self.overflows[0]}"
        where = f" in image {gate.where}" if gate.where else ""
        if gate.name == "error":
            assert self.scale is not None
            return (
                f"largest {self._quantity} error {gate.found * self.scale:.3g}{where} is above {gate.limit * self.scale:.3g} "
                f"({gate.limit:g} of its largest {self._quantity}, or of 1)"
            )
        if gate.name == "top1_margin":
            return (
                f"top-1 differs{where} although the reference leads by {gate.found:.3g}, more than twice the largest "
                f"{self._quantity} error where it agrees ({gate.limit:.3g})"
            )
        if gate.name == "top1":
            return f"top-1 agrees on {gate.found:.1%} of the images, below {gate.limit:.1%}"
        if gate.name in self.jaccard:
            return f"{gate.name} has a Jaccard index of {gate.found:.3f}, below {gate.limit:g}"
        if (name := gate.name.removesuffix("_error")) in self.features:
            scale = self.features[name].scale
            return (
                f"largest error of {name} {gate.found * scale:.3g}{where} is above {gate.limit * scale:.3g} ({gate.limit:g} of "
                "its largest value, or of 1)"
            )
        if (name := gate.name.removesuffix("_cosine")) in self.features:
            return f"smallest cosine of {name} {gate.found:.6f} is below {gate.limit:g}"
        if gate.name == "cosine":
            return f"smallest cosine {gate.found:.6f} is below {gate.limit:g}"
        return (
            f"{gate.name.removesuffix('_cut')} differs by {ONE[output_of(gate.name)]} whose reference score is {gate.found:.2%} "
            f"away from the cut, above {gate.limit:.2%}"
        )

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        document = dataclasses.asdict(self)
        gates = [gate.to_dict() for gate in self.gates]
        return {**document, "gates": gates, "passed": self.passed, "failure": self.failure}

"""What a diagnosis found: layers, blocks, stages, and who is to blame."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engines.emulate import FP16_MAX

if TYPE_CHECKING:
    from ..export import ParityReport

__all__ = ["Culprit", "Diagnosis", "Growth", "Layer", "StageMargin", "block_of"]

NEAR = 0.5  # of the range: within a factor of two of infinity


@dataclass(frozen=True)
class Layer:
    """One value, at worst over the images.

    Attributes:
        node: Name of the node that computes it.
        op: Its type.
        block: Number of its block; None outside of blocks.
        error: ||half - reference|| / ||reference||, when both take the reference's decisions.
        jump: ``error`` over the largest of the node's inputs (or the rounding unit, if that is larger).
        largest: Largest magnitude in the reference.
        range_used: ``largest`` over the largest finite number of the half type; 0 where the value stays FP32.
        overflowed: Infinite or NaN in half precision, finite in the reference.
        vanished: Share of its energy in elements that become zero.
        image: The image with the largest error, or with the overflow.
        peak: The image with the largest magnitude.
    """

    node: str
    op: str
    block: int | None
    error: float
    jump: float
    largest: float
    range_used: float
    overflowed: bool
    vanished: float
    image: str
    peak: str

    @property
    def near(self) -> bool:
        """Whether the value comes within a factor of two of overflow."""
        return self.range_used >= NEAR


@dataclass(frozen=True)
class Growth:
    """The residual stream after a block: its number, largest magnitude and error."""

    block: int
    largest: float
    error: float


@dataclass(frozen=True)
class StageMargin:
    """One selection.

    Attributes:
        name: ``kept_1``, ...
        moved: Images whose kept set differs by the scores in half precision.
        margin: Smallest distance of the K-th and (K+1)-th score over the images, relative to the score at the cut.
        swapped: How far from the cut a patch is that only one precision keeps, at most, relative to the score there.
        error: Largest difference of a score at any place, relative to the score at the cut.
        image: The image with the largest ``swapped``; the one with the smallest margin where none moved.
        block: The block before which it selects.
    """

    name: str
    moved: int
    margin: float
    swapped: float
    error: float
    image: str
    block: int | None


@dataclass(frozen=True)
class Culprit:
    """Who is to blame.

    Attributes:
        node: Name of the node.
        block: Number of its block, or of the block that a selection comes before; None where there is none.
        reason: ``reference`` (not finite in FP32), ``weight``, ``overflow``, ``underflow``, ``error``, ``near-tie``, or
            ``engine`` (an engine gives something else, and half precision is not why).
        text: One sentence.
    """

    node: str
    block: int | None
    reason: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`.diagnose` found.

    Attributes:
        model, reference: What was compared, in words.
        precision: ``fp16`` or ``bf16``; ``fp32`` for an engine in FP32, of which no layers are told.
        images: Names of the images.
        layers: In the order of computation; what only moves values is left out.
        blocks: The residual stream, block by block; empty for files whose nodes do not say their block.
        stages: Selections, first to last.
        weights: Node -> share of a weight's energy, in its worst channel, that the half type does not hold, above 5%.
        culprits: Who is to blame, first to blame first; empty where every gate holds and nothing overflows.
        parity: The gates, with the outputs in half precision as a GPU computes them, or an engine's own.
        seconds: Time taken.
    """

    model: str
    reference: str
    precision: str
    images: tuple[str, ...]
    layers: tuple[Layer, ...]
    blocks: tuple[Growth, ...]
    stages: tuple[StageMargin, ...]
    weights: dict[str, float]
    culprits: tuple[Culprit, ...]
    parity: ParityReport
    seconds: float = field(default=0.0)

    @property
    def passed(self) -> bool:
        """Whether every gate holds and nothing overflows."""
        return self.parity.passed and not any(culprit.reason in ("weight", "overflow") for culprit in self.culprits)

    @property
    def notable(self) -> tuple[Layer, ...]:
        """Layers that overflow or come near, whose values vanish, or whose error jumps, in the order of computation."""
        unit = unit_of(self.precision)
        return tuple(
            layer
            for layer in self.layers
            if layer.overflowed or layer.near or layer.vanished > 0.1 or (layer.error > 16 * unit and layer.jump > 4)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form; NaN and infinity become null when it is printed."""
        document = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("layers", "blocks", "stages", "culprits"):
            document[name] = [dataclasses.asdict(part) for part in getattr(self, name)]
        document["notable"] = [layer.node for layer in self.notable]
        return {**document, "images": list(self.images), "parity": self.parity.to_dict(), "passed": self.passed}


def unit_of(precision: str) -> float:
    """Return half the distance of 1 and the next number: what one rounding costs at most."""
    return 2.0**-8 if precision == "bf16" else 2.0**-11


def largest_of(precision: str) -> float:
    """Return the largest finite number of a half type."""
    return 3.39e38 if precision == "bf16" else FP16_MAX


def block_of(node: str) -> int | None:
    """Return the number of the block in a node's name: ``blocks.3/fc1/MatMul``, ``/blocks/blocks.3/...``; None without one.

    What stands after a block selects or restores for the next one, and counts as the next one's.
    """
    if match := re.match(r"after_blocks\.(\d+)", node):
        return int(match[1]) + 1
    match = re.search(r"(?:blocks?|layers?|layer)[./_](\d+)", node)
    return int(match[1]) if match else None


def blame(
    layers: tuple[Layer, ...], stages: tuple[StageMargin, ...], weights: dict[str, float], passed: bool, precision: str
) -> tuple[Culprit, ...]:
    """Return who is to blame, the surest evidence first: weight, overflow, underflow, jump of the error, near-tie."""
    found: list[Culprit] = []
    unit, limit = unit_of(precision), largest_of(precision)
    kind = precision.upper()
    for node, share in weights.items():
        if share >= 1.0:
            found.append(Culprit(node, block_of(node), "weight", f"a weight is beyond the range of {kind}"))
    first = next((layer for layer in layers if layer.overflowed), None)
    if first is not None:
        size = f"reaches {first.largest:.3g} in {first.peak}, and {kind} ends at {limit:.5g}"
        if first.largest < limit:
            size = f"is not finite in {kind} in {first.image}, on the way to a result of {first.largest:.3g}"
        found.append(Culprit(first.node, first.block, "overflow", f"{first.op} {size}"))
    if first is None and not passed:
        for node, share in weights.items():
            if share < 1.0:
                text = f"{share:.0%} of a weight is lost to rounding in {kind}"
                found.append(Culprit(node, block_of(node), "weight", text))
        gone = next((layer for layer in layers if layer.vanished > 0.5 and layer.range_used), None)
        if gone is not None:
            text = f"{gone.vanished:.0%} of the result becomes zero: it is at most {gone.largest:.3g}"
            found.append(Culprit(gone.node, gone.block, "underflow", text))
    jumps = [layer for layer in layers if layer.error > 16 * unit and layer.jump > 4]
    if first is None and not passed and jumps:
        found.append(_jump(jumps[0]))
    for stage in stages:
        if stage.moved and first is None and (not passed or stage.swapped > 64 * unit):
            text = (
                f"{stage.name} keeps other patches in {stage.moved} images: scores that differ by {stage.swapped:.2%} of the cut "
                f"change sides, at most, in {stage.image}"
            )
            where = f"before block {stage.block}" if stage.block is not None else stage.name
            found.append(Culprit(where, stage.block, "near-tie", text))
    if not found and not passed and layers:
        found.append(_jump(max(layers, key=lambda one: math.log1p(one.error / unit) * one.jump)))
    return tuple(found)


def _jump(layer: Layer) -> Culprit:
    text = f"the error goes up {layer.jump:.0f} times, to {layer.error:.2%}, in {layer.image}"
    return Culprit(layer.node, layer.block, "error", text)

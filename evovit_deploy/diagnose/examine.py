"""From two graphs to a report of where half precision breaks the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..classes.output_names import PLACES, output_of
from .layers import LayerRun, residual_of, run_layers
from .pairs import Paired, pair_graphs
from .report import Culprit, Diagnosis, Growth, Layer, StageMargin, blame, block_of, largest_of, unit_of
from .sources import BothGraphs

if TYPE_CHECKING:
    from ..export import ParityReport

__all__ = ["Examined", "Step", "examine"]

Array = NDArray[Any]
Step = Callable[[str, int, int], None]
CANCELLED = 1e-5


@dataclass(frozen=True)
class Examined:
    """What was found of two graphs, and what more a comparison with other outputs needs.

    Attributes:
        diagnosis: Of the graphs.
        outputs: Of the reference.
        scores: The reference's scores [n, N] of the first selection, by the name of the kept set.
    """

    diagnosis: Diagnosis
    outputs: dict[str, Array]
    scores: dict[str, Array]


def examine(source: BothGraphs, images: Array, names: tuple[str, ...], step: Step) -> Examined:
    """Run both precisions layer by layer, and judge what they give.

    Args:
        source: Both graphs.
        images: [n, ...] as they take them.
        names: Of the images.
        step: Called with a few words, runs done and runs in all.
    """
    paired = pair_graphs(source.reference, source.half)
    run = run_layers(paired, images, lambda done, total: step("running both precisions", done, total))
    layers = _layers(paired, run, names)
    stages, moved, scores = _stages(paired, run, names)
    parity = _parity(source, paired, run, images, names, moved, scores)
    culprits = (
        *_undefined(paired, run, names),
        *blame(layers, stages, paired.lost, parity.passed, paired.kind),
    )
    growth = [
        Growth(block, run.measured[i].largest, run.measured[i].error) for block, i in residual_of(paired.pairs).items()
    ]
    found = Diagnosis(
        source.model,
        source.against,
        paired.kind,
        names,
        layers,
        tuple(growth),
        stages,
        paired.lost,
        culprits,
        parity,
    )
    return Examined(found, run.outputs, scores)


def _layers(paired: Paired, run: LayerRun, names: Sequence[str]) -> tuple[Layer, ...]:
    unit, limit = unit_of(paired.kind), largest_of(paired.kind)
    found = []
    for pair, seen in zip(paired.pairs, run.measured):
        before = max((run.measured[i].error for i in pair.before), default=0.0)
        read = max((run.measured[i].largest for i in pair.before), default=0.0)
        # Two numbers that cancel leave their rounding, which is as large as before and means as little.
        cancelled = seen.largest < CANCELLED * read
        found.append(
            Layer(
                pair.node,
                pair.op,
                block_of(pair.node),
                seen.error,
                1.0 if cancelled else seen.error / max(before, unit),
                seen.largest,
                seen.largest / limit if pair.rounded else 0.0,
                seen.overflowed,
                seen.vanished,
                names[seen.where],
                names[seen.peak],
            )
        )
    return tuple(found)


def _undefined(paired: Paired, run: LayerRun, names: Sequence[str]) -> tuple[Culprit, ...]:
    """The first node that is not finite in FP32 itself."""
    for pair, seen in zip(paired.pairs, run.measured):
        if seen.undefined is not None:
            text = f"{pair.op} is not finite in FP32 itself, in {names[seen.undefined]}"
            return (Culprit(pair.node, block_of(pair.node), "reference", text),)
    return ()


def _stages(
    paired: Paired, run: LayerRun, names: Sequence[str]
) -> tuple[tuple[StageMargin, ...], set[int], dict[str, Array]]:
    """Every selection, by the scores that it decides by; the images that keep other patches in half precision; and the
    reference's scores [n, N] of the first selection, before which no token has moved.
    """
    from ..export.parity import TIE

    kept = {name: value for name, value in run.outputs.items() if output_of(name) == "kept"}
    nodes = {pair.reference: pair.node for pair in paired.pairs}
    scores: list[tuple[str, Array, Array]] = []
    for name in (pair.reference for pair in paired.pairs if pair.reference in run.deciding):
        a, b = (side.reshape(len(names), -1) for side in run.deciding[name])
        if not any(x.shape == a.shape and np.array_equal(x, a) for _, x, _ in scores):
            scores.append((nodes[name], a, b))
    stages: list[StageMargin] = []
    moved, told = set[int](), dict[str, Array]()
    for stage, chosen in kept.items():
        count = chosen.shape[1]
        place = next((i for i, (_, a, _) in enumerate(scores) if a.shape[1] > count), None)
        if place is None:
            break
        node, a, b = scores[place]
        del scores[: place + 1]
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not stages:
            told[stage] = a[:, a[0] < 1e8]
        keep = count + int((a[0] >= 1e8).sum())  # class token and registers are above all patches
        margin, swapped, error, image = np.inf, 0.0, 0.0, 0
        nearest = 0
        others = 0
        for i, (mine, theirs) in enumerate(zip(a, b)):
            order = np.argsort(-mine, kind="stable")
            cut = mine[order[keep - 1 : keep + 1]].mean()
            unit = max(abs(cut), np.finfo(np.float64).tiny)
            gap = float((mine[order[keep - 1]] - mine[order[keep]]) / unit) if keep < len(mine) else np.inf
            if gap < margin:
                margin, nearest = gap, i
            patches = mine < 1e8
            error = max(error, float(np.abs(mine - theirs)[patches].max() / unit))
            differ = np.setxor1d(order[:keep], np.argsort(-theirs, kind="stable")[:keep])
            if len(differ) and np.isfinite(theirs).all():
                distance = float(np.abs(mine[differ] - cut).max() / unit)
                if distance > TIE:  # FP32 does not decide one either
                    others += 1
                    moved.add(i)
                if distance > swapped:
                    swapped, image = distance, i
        where = names[image if others else nearest]
        stages.append(StageMargin(stage, others, float(margin), swapped, error, where, block_of(node)))
    return tuple(stages), moved, told


def _parity(
    source: BothGraphs,
    paired: Paired,
    run: LayerRun,
    images: Array,
    names: Sequence[str],
    moved: set[int],
    scores: dict[str, Array],
) -> ParityReport:
    """The gates, for the half graph with its own decisions; the images that keep other patches run once more for that."""
    from ..engines.ort.session import session
    from ..export.parity import compare

    got = {name: value.copy() for name, value in run.forced.items()}
    if moved:
        runner = session(paired.free().SerializeToString(), "cpu", None, optimise=False)
        given = [output.name for output in runner.get_outputs()]
        size = source.batch or 1
        for i in sorted(moved):
            found = dict(zip(given, runner.run(None, {runner.get_inputs()[0].name: images[i : i + 1].repeat(size, 0)})))
            for name in got:
                got[name][i] = found[name][0]
    settled = dict(run.outputs)
    for name in got:
        if output_of(name) not in PLACES:  # what is left with the same patches on both sides is rounding
            with np.errstate(invalid="ignore"):
                settled[name] = got[name] - (run.forced[name] - run.outputs[name])
            broken = ~np.isfinite(settled[name])
            settled[name][broken] = run.outputs[name][broken]
    tolerance = source.recipe.tolerances[paired.kind]
    report = compare(run.outputs, got, tolerance, names=names, scores=scores, settled=settled)
    over = [
        f"{pair.node}: {seen.largest:.3g}, {names[seen.where]}"
        for pair, seen in zip(paired.pairs, run.measured)
        if seen.overflowed and not any(run.measured[i].overflowed for i in pair.before)
    ]
    over = [f"{node}: a weight is beyond it" for node, share in paired.lost.items() if share >= 1] + over
    return dataclasses.replace(report, overflows=tuple(over))

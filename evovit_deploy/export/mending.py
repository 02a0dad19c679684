"""The smallest change that lets a model run in FP16: exact scaling first, then islands of FP32, found by bisection."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.emulate import WATCH, watched
from ..errors import ParityError
from .islands import candidates, named, with_islands
from .parity import compare
from .proof import run_module, same_kept
from .scaling import propose, rescale
from .strict import StrictRun, broken_constants

if TYPE_CHECKING:
    import onnx

    from ..recipes import Tolerance
    from .gates import ParityReport

__all__ = ["Mended", "Mender"]

Array = NDArray[Any]
FEW = 5  # images that the search runs on; the whole set judges its result
MOST_TRIALS = 240


@dataclass(frozen=True)
class Mended:
    """What was done to a graph.

    Attributes:
        graph: The half-precision graph to write.
        islands: Nodes that compute in FP32, in the order of computation.
        scales: What was scaled, by what power of two; see :mod:`.scaling`.
        trials: Graphs that were tried.
    """

    graph: onnx.ModelProto
    islands: tuple[str, ...] = ()
    scales: dict[str, int] = field(default_factory=dict)
    trials: int = 0


class Mender:
    """Finds what a model needs to pass in FP16.

    Args:
        whole: The FP32 module, as it is exported (folded or not).
        reference: The plain FP32 module that a proof holds it against.
        export: Module -> ONNX graph.
        images: [n, ...] as both take them.
        names: Of the images.
        batch: Static batch of the graph, or None.
        tolerance: Of the recipe.
        step: Called with a few words about what is tried.
    """

    def __init__(
        self,
        whole: Any,
        reference: Any,
        export: Callable[[Any], onnx.ModelProto],
        images: Array,
        names: Sequence[str],
        batch: int | None,
        tolerance: Tolerance,
        step: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.whole, self.reference, self.export, self.step = whole, reference, export, step
        self.images, self.names, self.batch, self.tolerance = images, tuple(names), batch, tolerance
        self.expected, self.scores = run_module(reference, images)
        self.trials = 0

    def named(self, half: onnx.ModelProto, patterns: Sequence[str]) -> Mended:
        """Return the graph with the islands that were asked for.

        Raises:
            InputError: A name that no node has.
        """
        chosen = named(half, patterns)
        graph = with_islands(half, self.export(self.whole), chosen)
        return Mended(graph, tuple(name for name in candidates(half) if name in chosen))

    def automatic(self, half: onnx.ModelProto) -> Mended:
        """Return the graph as it is where it passes, else with the least that makes it pass.

        Raises:
            ParityError: Not even FP32 everywhere makes it pass.
        """
        report, run = self._judge(half, range(len(self.images)))
        if _good(report):
            return Mended(half, trials=self.trials)
        self.step("FP16 does not hold: looking for what has to change")
        exact = self.export(self.whole)
        scales = propose(self.whole, self._ranges(exact))
        if scales:
            scaled = copy.deepcopy(self.whole)
            rescale(scaled, scales)
            candidate = self.export(copy.deepcopy(scaled).half())
            better, its_run = self._judge(candidate, range(len(self.images)))
            if _good(better, strict=True):
                return Mended(candidate, scales=scales, trials=self.trials)
            if _badness(better) <= _badness(report):
                half, report, run, exact = candidate, better, its_run, self.export(scaled)
            else:
                scales = {}
        islands = self._search(half, exact, report, run)
        return Mended(with_islands(half, exact, islands), tuple(islands), scales, self.trials)

    def _search(self, half: onnx.ModelProto, exact: onnx.ModelProto, report: ParityReport, run: StrictRun) -> list[str]:
        known = candidates(half)
        order = {name: number for number, name in enumerate(known)}
        everything = range(len(self.images))
        complete, _ = self._judge(with_islands(half, exact, known), everything)
        if not _good(complete):
            raise ParityError(
                f"no islands make this model pass in half precision: with all {len(known)} nodes in FP32, {complete.failure}."
            )
        strict = _good(complete, strict=True)
        chosen = self._around_overflows(half, exact, run)
        found, _ = self._judge(with_islands(half, exact, chosen), everything) if chosen else (report, run)
        rows = self._hard(report, found)
        good = self._tester(half, exact, rows, strict)
        if not _good(found, strict=strict):
            units = _units(known)
            kept = _minimise([unit for unit in units if not unit <= chosen], lambda part: good(chosen | part))
            chosen = chosen | set().union(*kept)
        members = sorted(chosen, key=order.__getitem__)
        least = [name for unit in _minimise([{name} for name in members], good) for name in unit]
        final, _ = self._judge(with_islands(half, exact, least), everything)
        return least if _good(final, strict=strict) else members

    def _around_overflows(self, half: onnx.ModelProto, exact: onnx.ModelProto, run: StrictRun) -> set[str]:
        """The nodes that overflow and those that read them, until nothing does."""
        known = set(candidates(half))
        chosen: set[str] = set()
        graph = half
        for _ in range(12):
            bad = run.beginnings | set(broken_constants(graph))
            if not bad:
                break
            readers = _readers(half)
            grown = chosen | ((bad | set().union(*(readers.get(name, set()) for name in bad))) & known)
            if grown == chosen:
                break
            chosen = grown
            graph = with_islands(half, exact, chosen)
            run = self._judge(graph, range(len(self.images)))[1]
        return chosen

    def _tester(
        self, half: onnx.ModelProto, exact: onnx.ModelProto, rows: Sequence[int], strict: bool
    ) -> Callable[[set[str]], bool]:
        def good(islands: set[str]) -> bool:
            if self.trials >= MOST_TRIALS:
                return False
            self.step(f"trying {len(islands)} nodes in FP32")
            report, _ = self._judge(with_islands(half, exact, islands), rows)
            return _good(report, strict=strict)

        return good

    def _judge(self, graph: onnx.ModelProto, rows: Sequence[int]) -> tuple[ParityReport, StrictRun]:
        """The gates of a graph on some of the images."""
        self.trials += 1
        run, picked = StrictRun(graph, self.batch), list(rows)
        images, names = self.images[picked], [self.names[i] for i in picked]
        expected = {name: value[picked] for name, value in self.expected.items()}
        scores = {name: value[picked] for name, value in self.scores.items()}
        got = {name: value for name, value in run(images).items() if name in expected}
        settled = same_kept(self.reference, images, expected, got)
        report = compare(expected, got, self.tolerance, names=names, scores=scores, settled=settled)
        return dataclasses.replace(report, overflows=run.overflows(names)), run

    def _ranges(self, exact: onnx.ModelProto) -> dict[str, float]:
        """Node -> largest magnitude of its value in FP32."""
        from ..engines.onnxruntime import session

        runner = session(watched(exact).SerializeToString(), "cpu", None, optimise=False)
        told = [output.name for output in runner.get_outputs() if output.name.startswith(WATCH)]
        largest: dict[str, float] = {}
        for start in range(len(self.images)):
            part = self.images[(start + np.arange(self.batch or 1)) % len(self.images)]
            for name, value in zip(told, runner.run(told, {"images": part})):
                largest[name[len(WATCH) :]] = max(largest.get(name[len(WATCH) :], 0.0), float(value))
        return largest

    def _hard(self, *reports: ParityReport) -> list[int]:
        """Numbers of a few images that show the fault, and of the first."""
        told = [text.rpartition(", ")[2] for report in reports for text in report.overflows or ()]
        told += [flip.image for report in reports for flip in report.flips]
        told += [report.worst for report in reports]
        told += [match.worst for report in reports for match in report.features.values()]
        told += [text.removeprefix("reference: ") for report in reports for text in report.not_finite]
        rows = [self.names.index(name) for name in dict.fromkeys(told) if name in self.names][: FEW - 1]
        return sorted({0, *rows})


def _good(report: ParityReport, strict: bool = False) -> bool:
    """Whether every gate holds, and no other top class is excused by the cut alone; ``strict``: no other top class at all."""
    if not report.passed:
        return False
    return not report.flips if strict else all(flip.margin <= report.flip_limit for flip in report.flips)


def _badness(report: ParityReport) -> tuple[int, int, float]:
    error = report.largest_error
    return len(report.not_finite), len(report.overflows or ()), error if error is not None else np.inf


def _units(known: Sequence[str]) -> list[set[str]]:
    """Nodes by what they belong to: one half of a block, the embedding, what stands after a block."""
    units: dict[str, set[str]] = {}
    for name in known:
        module, *rest = name.split("/")
        if module.startswith("blocks."):
            module += ".attn" if rest and rest[0] in ("norm1", "attn", "class_row", "class_attention") else ".mlp"
        units.setdefault(module, set()).add(name)
    return list(units.values())


def _minimise(units: list[set[str]], good: Callable[[set[str]], bool]) -> list[set[str]]:
    """Drop as many units as can be dropped while ``good`` holds for the rest: halves first, then quarters, down to one."""
    size = max(1, len(units) // 2)
    while units:
        place = 0
        while place < len(units):
            rest = units[:place] + units[place + size :]
            if good(set().union(*rest)):
                units = rest
            else:
                place += size
        if size == 1:
            break
        size //= 2
    return units


def _readers(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Node -> nodes that compute with its values, through what only moves them."""
    from .islands import MOVES

    of: dict[str, set[str]] = {}  # value -> nodes it comes from
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        sources = set().union(*(of.get(name, set()) for name in node.input))
        if node.op_type in MOVES:
            origin = sources
        else:
            for source in sources:
                readers.setdefault(source, set()).add(node.name)
            origin = {node.name}
        for name in node.output:
            of[name] = origin
    return readers

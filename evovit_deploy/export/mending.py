"""The smallest change that lets a model run in FP16: exact scaling first, then islands of FP32, found by bisection."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.emulate import FP16_MAX, WATCH, watched
from ..errors import ParityError
from .islands import candidates, named, with_islands
from .parity import compare
from .proof import run_graph, run_module, same_kept
from .scaling import in_words, propose, rescale
from .search import minimise, readers_of, units_of
from .strict import StrictRun

if TYPE_CHECKING:
    import onnx

    from ..models.seams import Seam
    from ..recipes import Tolerance
    from .gates import ParityReport

__all__ = ["Mended", "Mender"]

Array = NDArray[Any]
FEW = 5  # images of each kind that the search begins with, and that a round adds; the whole set judges its result
ROUNDS = 3
MOST_TRIALS = 240  # in a round
CAST = re.compile(r"/Cast_(in|out)_\d+$")  # what stands at the shore of an island


@dataclass(frozen=True)
class Mended:
    """What was done to a graph.

    Attributes:
        graph: The half-precision graph to write.
        islands: Nodes that compute in FP32, in the order of computation.
        scales: What was scaled, by what power of two; see :mod:`.scaling`.
    """

    graph: onnx.ModelProto
    islands: tuple[str, ...] = ()
    scales: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """What the gates said of a graph, the run, and the numbers of the images that would not pass alone."""

    report: ParityReport
    run: StrictRun
    failing: tuple[int, ...]

    def good(self, strict: bool = False) -> bool:
        """Whether every gate holds, and no other top class is excused by the cut alone; ``strict``: no other one at all."""
        report = self.report
        if not report.passed:
            return False
        return not report.flips if strict else all(flip.margin <= report.flip_limit for flip in report.flips)

    @property
    def badness(self) -> float:
        """Error; infinite where an output is not finite."""
        error = self.report.largest_error
        return np.inf if self.report.not_finite or error is None else error


class Mender:
    """Finds what a model needs to pass in FP16.

    Args:
        whole: The FP32 module, as it is exported (folded or not).
        reference: The plain FP32 module that a proof holds it against.
        export: Module -> ONNX graph.
        seams: Of its family: where the FP32 module can be scaled.
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
        seams: Callable[[Any], Sequence[Seam]],
        images: Array,
        names: Sequence[str],
        batch: int | None,
        tolerance: Tolerance,
        step: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.whole, self.reference, self.export, self.seams, self.step = whole, reference, export, seams, step
        self.images, self.names, self.batch, self.tolerance = images, tuple(names), batch, tolerance
        self.trials = 0  # graphs that were judged
        self.native = False  # once a result has failed only there

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
        self.expected, self.scores = run_module(self.reference, self.images)
        everything = range(len(self.images))
        found = self._judge(half, everything, native=True)
        if found.good() or found.report.undefined:  # what is not finite in FP32 no island mends
            return Mended(half)
        self.step("FP16 does not hold: looking for what has to change")
        exact = self.export(self.whole)
        ranges = self._ranges(exact)
        scales = propose(self.seams(self.whole), ranges)
        if scales:
            scaled = copy.deepcopy(self.whole)
            rescale(self.seams(scaled), scales)
            candidate = self.export(copy.deepcopy(scaled).half())
            better = self._judge(candidate, everything, native=True)
            if better.good(strict=True):
                return Mended(candidate, scales=in_words(scales))
            scaled_ranges = self._ranges(whole := self.export(scaled))
            if _beyond(scaled_ranges, whole) < _beyond(ranges, exact) or better.badness < found.badness:
                half, found, exact, ranges = candidate, better, whole, scaled_ranges
            else:
                scales = {}
        islands = self._search(half, exact, found, ranges)
        return Mended(with_islands(half, exact, islands), tuple(islands), in_words(scales))

    def _search(
        self, half: onnx.ModelProto, exact: onnx.ModelProto, first: Trial, ranges: Mapping[str, Array]
    ) -> list[str]:
        """The smallest set of nodes found, in the order of computation: on a few images, and again with those that it fails."""
        known = candidates(half)
        everything = range(len(self.images))
        complete = self._judge(with_islands(half, exact, known), everything)
        if not complete.good():
            raise ParityError(
                f"no islands make this model pass in half precision: with all {len(known)} nodes in FP32, "
                f"{complete.report.failure}."
            )
        strict = complete.good(strict=True)
        around, final = self._around_overflows(half, exact, first, ranges)
        rows = {0, *first.failing[: FEW - 1], *final.failing[:FEW]}
        for _ in range(ROUNDS):
            good = self._tester(half, exact, sorted(rows), strict)
            chosen = set(around)
            if not final.good(strict=strict):
                units = [unit for unit in units_of(known) if not unit <= around]
                chosen |= set().union(*minimise(units, good, always=around))
            single = [{name} for name in known if name in chosen]
            least = [name for unit in minimise(single, good) for name in unit]
            final = self._judge(with_islands(half, exact, least), everything, native=True)
            if final.good(strict=strict):
                return least
            self.native = True
            new = [row for row in final.failing if row not in rows]
            rows |= set(new[:FEW] or everything)
        return known

    def _around_overflows(
        self, half: onnx.ModelProto, exact: onnx.ModelProto, found: Trial, ranges: Mapping[str, Array]
    ) -> tuple[set[str], Trial]:
        """The nodes that overflow and those that read them, until nothing does, and what the gates say of these as islands.

        Args:
            found: What they say of ``half``.
        """
        known, readers = set(candidates(half)), readers_of(half)
        bad = {
            name for name, largest in ranges.items() if largest.max(initial=0.0) > FP16_MAX
        }  # in FP32: all of a stream at once
        chosen: set[str] = set()
        for _ in range(12):
            bad |= {CAST.sub("", name) for name in (*found.run.beginnings, *found.run.constants)}
            grown = chosen | ((bad | set().union(*(readers.get(name, set()) for name in bad))) & known)
            if grown == chosen:
                break
            chosen = grown
            found = self._judge(with_islands(half, exact, chosen), range(len(self.images)))
        return chosen, found

    def _tester(
        self, half: onnx.ModelProto, exact: onnx.ModelProto, rows: Sequence[int], strict: bool
    ) -> Callable[[set[str]], bool]:
        end = self.trials + MOST_TRIALS

        def good(islands: set[str]) -> bool:
            if self.trials >= end:
                return False
            self.step(f"trying {len(islands)} nodes in FP32")
            return self._judge(with_islands(half, exact, islands), rows).good(strict=strict)

        return good

    def _judge(self, graph: onnx.ModelProto, rows: Sequence[int], native: bool = False) -> Trial:
        """The gates of a graph on some of the images; ``native``: as ONNX Runtime runs it too, which rounds elsewhere."""
        self.trials += 1
        run, picked = StrictRun(graph, self.batch), list(rows)
        images = self.images[picked]
        report, failing = self._compared(run(images), picked)
        report = dataclasses.replace(report, overflows=run.overflows([self.names[i] for i in picked]))
        if native or self.native:
            other, more = self._compared(self._run(graph, images, native), picked)
            failing |= more
            if report.passed and (not other.passed or len(other.flips) > len(report.flips)):
                report = other
        return Trial(report, run, tuple(sorted(failing | {picked[i] for i in run.worst.values()})))

    def _compared(self, outputs: Mapping[str, Array], picked: list[int]) -> tuple[ParityReport, set[int]]:
        """Outputs for some of the images against the reference, and the numbers of those that would not pass alone."""
        names = [self.names[i] for i in picked]
        expected = {name: value[picked] for name, value in self.expected.items()}
        scores = {name: value[picked] for name, value in self.scores.items()}
        got = {name: outputs[name] for name in outputs if name in expected}
        settled = same_kept(self.reference, self.images[picked], expected, got)

        def compared(at: slice) -> ParityReport:
            a, b, c, s = ({n: v[at] for n, v in part.items()} for part in (expected, got, settled, scores))
            return compare(a, b, self.tolerance, names=names[at], scores=s, settled=c)

        alone = {row: compared(slice(i, i + 1)) for i, row in enumerate(picked)}
        return compared(slice(None)), {row for row, one in alone.items() if not one.passed or one.flips}

    def _run(self, graph: onnx.ModelProto, images: Array, optimise: bool) -> dict[str, Array]:
        """The outputs of a graph on ONNX Runtime's CPU provider.

        Not optimised while the search goes on: among hundreds of graphs with Casts in odd places there are some that ONNX
        Runtime 1.31.1's optimiser crashes on.
        """
        return run_graph(graph, images, self.batch, optimise=optimise)

    def _ranges(self, exact: onnx.ModelProto) -> dict[str, Array]:
        """Node -> largest magnitudes [C] of its value in FP32, along its last axis."""
        from ..engines.ort.session import session

        runner = session(watched(exact).SerializeToString(), "cpu", None, optimise=False)
        told = [output.name for output in runner.get_outputs() if output.name.startswith(WATCH)]
        largest: dict[str, Array] = {}
        for start in range(0, len(self.images), self.batch or 1):
            part = self.images[(start + np.arange(self.batch or 1)) % len(self.images)]
            for name, value in zip(told, runner.run(told, {"images": part})):
                node = name[len(WATCH) :]
                largest[node] = np.maximum(largest[node], value) if node in largest else value
        return largest


def _beyond(ranges: Mapping[str, Array], exact: onnx.ModelProto) -> int:
    """Number of values and weights of an FP32 graph that FP16 does not reach."""
    from onnx import numpy_helper

    weights = [numpy_helper.to_array(tensor) for tensor in exact.graph.initializer]
    large = [np.abs(array).max(initial=0.0) for array in weights if array.dtype == np.float32]
    return sum(top > FP16_MAX for top in (*large, *(sizes.max(initial=0.0) for sizes in ranges.values())))

"""Both graphs run layer by layer through Polygraphy, a slice of values and an image at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .pairs import Paired, ValuePair

if TYPE_CHECKING:
    import onnx

__all__ = ["Deviation", "LayerRun", "run_layers"]

Array = NDArray[Any]
SLICE_BYTES = 96 << 20  # of one side's values at a time
UNKNOWN_BYTES = 4 << 20  # of a value whose shape is not known


@dataclass
class Deviation:
    """What was seen of one value, at worst over the images.

    Attributes:
        error: ||half - reference|| / ||reference||, where both are finite.
        largest: Largest magnitude in the reference.
        overflowed: Whether half precision is infinite or NaN where the reference is finite.
        vanished: Share of the reference's energy in elements that half precision makes zero.
        where: Number of the image with the largest error, or with the first overflow.
        peak: Number of the image with the largest magnitude.
        undefined: Number of the first image in which the reference itself is not finite; None where it is in all.
    """

    error: float = 0.0
    largest: float = 0.0
    overflowed: bool = False
    vanished: float = 0.0
    where: int = 0
    peak: int = 0
    undefined: int | None = None

    def see(self, reference: Array, half: Array, image: int) -> bool:
        """Take one image in; return whether half precision is finite where the reference is."""
        a, b = reference.astype(np.float32, copy=False), half.astype(np.float32, copy=False)
        size = float(np.abs(a).max()) if a.size else 0.0
        if size > self.largest:
            self.largest, self.peak = size, image
        if not np.isfinite(a).all():
            self.undefined = image if self.undefined is None else self.undefined
        elif not np.isfinite(b).all():
            if not self.overflowed:
                self.overflowed, self.where = True, image
            return False
        length = _length(a)
        if length and np.isfinite(length) and not self.overflowed:
            error = _length(a - b) / length
            if error > self.error:
                self.error, self.where = error, image
            zero = b == 0
            if zero.any():
                self.vanished = max(self.vanished, _length(a[zero]) / length)
        return True


@dataclass
class LayerRun:
    """What :func:`run_layers` found.

    Attributes:
        measured: One for each of the pairs.
        outputs: Name -> [n, ...] of the reference, and of the half graph with the reference's decisions.
        forced: See ``outputs``.
        deciding: Value of the reference that a decision is taken by -> ([n, ...] there, [n, ...] in half precision).
    """

    measured: list[Deviation]
    outputs: dict[str, Array] = field(default_factory=dict)
    forced: dict[str, Array] = field(default_factory=dict)
    deciding: dict[str, tuple[Array, Array]] = field(default_factory=dict)


def run_layers(paired: Paired, images: Array, step: Callable[[int, int], None] = lambda done, total: None) -> LayerRun:
    """Run both graphs on every image and compare every value.

    Args:
        paired: From :func:`.pairs.pair_graphs`.
        images: [n, ...] as the graphs take them; a static batch above 1 is filled with copies.
        step: Called with the number of runs done, and of all.

    Only ``SLICE_BYTES`` of values are held at a time: more than that are computed in several passes.
    """
    from polygraphy.comparator import Comparator, IterationResult, RunResults

    run = LayerRun([Deviation() for _ in paired.pairs])
    names = [output.name for output in paired.reference.graph.output]
    slices = list(_slices(paired))
    by_reference = {pair.reference: number for number, pair in enumerate(paired.pairs)}
    seen: dict[str, list[tuple[Array, Array]]] = {name: [] for name in paired.decided if name in by_reference}
    outputs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in names}
    source = paired.reference.graph.input[0]
    static = source.type.tensor_type.shape.dim[0].dim_value or 1
    total = len(slices) * len(images)
    for number, part in enumerate(slices):
        first = number == 0
        extra = [*paired.decided, *(names if first else ())]
        mine = list(dict.fromkeys([*(paired.pairs[i].reference for i in part), *extra]))
        theirs = list(dict.fromkeys([*(paired.pairs[i].half for i in part), *(names if first else ())]))
        if first:
            theirs += [
                paired.pairs[by_reference[n]].half for n in seen if paired.pairs[by_reference[n]].half not in theirs
            ]
        with _runner(paired.reference, mine, "fp32") as reference, _runner(paired.half, theirs, paired.kind) as half:
            for image in range(len(images)):
                feed = {source.name: images[image : image + 1].repeat(static, 0)}
                exact = dict(reference.infer(feed, check_inputs=False))
                decisions = {name: exact[value] for value, name in paired.decided.items()}
                rounded = dict(half.infer({**feed, **decisions}, check_inputs=False))
                results = RunResults([("fp32", [IterationResult(exact)]), (paired.kind, [IterationResult(rounded)])])

                def compare(
                    one: Any, other: Any, part: Sequence[int] = part, image: int = image
                ) -> OrderedDict[str, bool]:
                    verdicts: OrderedDict[str, bool] = OrderedDict()
                    for i in part:
                        pair = paired.pairs[i]
                        verdicts[pair.node] = run.measured[i].see(one[pair.reference], other[pair.half], image)
                    return verdicts

                with _quiet():
                    Comparator.compare_accuracy(results, compare_func=compare)
                if first:
                    for name in names:
                        outputs[name].append((exact[name][:1], rounded[name][:1]))
                    for name in seen:
                        seen[name].append((exact[name][:1], rounded[paired.pairs[by_reference[name]].half][:1]))
                step(number * len(images) + image + 1, total)
    run.outputs = {name: np.concatenate([a for a, _ in rows]) for name, rows in outputs.items()}
    run.forced = {name: np.concatenate([b for _, b in rows]) for name, rows in outputs.items()}
    run.deciding = {
        name: (np.concatenate([a for a, _ in rows]), np.concatenate([b for _, b in rows]))
        for name, rows in seen.items()
    }
    return run


@contextmanager
def _runner(model: onnx.ModelProto, outputs: Sequence[str], name: str) -> Iterator[Any]:
    """A Polygraphy runner of the graph with these values as outputs; not optimised, so that what is rounded stays rounded."""
    import onnx
    from polygraphy.backend.onnx import ModifyOutputs
    from polygraphy.backend.onnxrt import OnnxrtRunner

    from ..engines.ort.session import session

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        marked = ModifyOutputs(copy, outputs=list(outputs))()
        data = marked.SerializeToString()
        del copy, marked  # one copy of the weights less while the session is made
        made = session(data, "cpu", None, optimise=False)
        del data
        with OnnxrtRunner(made, name=name) as runner:
            yield runner


@contextmanager
def _quiet() -> Iterator[None]:
    """Polygraphy reports on its own; here its results are reported."""
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        yield


def _slices(paired: Paired) -> Iterator[list[int]]:
    """Numbers of pairs whose values fit into :data:`SLICE_BYTES` together, with one image."""
    sizes = _bytes(paired.reference)
    part: list[int] = []
    held = 0
    for number, pair in enumerate(paired.pairs):
        size = sizes.get(pair.reference, UNKNOWN_BYTES)
        if part and held + size > SLICE_BYTES:
            yield part
            part, held = [], 0
        part.append(number)
        held += size
    if part:
        yield part


def _bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Value -> bytes in FP32 of one image, where the shape is known; an unknown batch is 1."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {}
    for info in (*graph.value_info, *graph.output):
        shape = info.type.tensor_type.shape
        if info.type.tensor_type.HasField("shape"):
            found[info.name] = 4 * int(np.prod([max(dim.dim_value, 1) for dim in shape.dim], dtype=np.int64))
    return found


def _length(values: Array) -> float:
    flat = values.ravel()
    square = float(np.dot(flat, flat))
    if not np.isfinite(square) or square < 1e-30:  # beyond FP32, at either end
        flat = flat.astype(np.float64)
        square = float(np.dot(flat, flat))
    return float(square**0.5)


def residual_of(pairs: Sequence[ValuePair]) -> dict[int, int]:
    """Block -> number of the pair that is the block's result: the last addition named directly under it."""
    import re

    found = {}
    for number, pair in enumerate(pairs):
        if match := re.fullmatch(r"blocks\.(\d+)/Add(?:_\d+)?", pair.node):
            found[int(match[1])] = number
    return found

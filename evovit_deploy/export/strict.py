"""An FP16 graph as a GPU computes it, and where in it values leave FP16.

ONNX Runtime's CPU provider computes many FP16 operators in FP32 and does not round between them, so that what overflows on a GPU
can have right outputs there. :class:`StrictRun` rounds after every operation and keeps the largest magnitude of every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engines.emulate import FP16_MAX, WATCH, emulate_fp16
from ..engines.unfused import stands_for, unfused

if TYPE_CHECKING:
    import onnx

__all__ = ["StrictRun", "broken_constants", "node_names"]

Array = NDArray[Any]
ROUNDS_TO_INFINITY = 65520.0  # the smallest magnitude that FP16 rounds to infinity


class StrictRun:
    """Runs an FP16 graph with a rounding after every operation.

    Args:
        model: FP16 graph, input ``images``.
        batch: Static batch of the graph, or None.

    Attributes:
        outputs: Names of the graph's outputs.
        largest: Value computed in FP16 -> its largest magnitude before rounding, over all images run so far.
        worst: Value -> number of the first image that it was out of range in.
        constants: Nodes that read a weight which is not finite.
    """

    def __init__(self, model: onnx.ModelProto, batch: int | None = None) -> None:
        from ..engines.ort.session import session

        model = unfused(model)
        self.outputs = [output.name for output in model.graph.output]
        self.input = model.graph.input[0].name
        self.batch = batch
        self.largest: dict[str, float] = {}
        self.worst: dict[str, int] = {}
        self._nodes = {value: stands_for(name) for value, name in node_names(model).items()}
        self.constants = broken_constants(model)
        self._session = session(emulate_fp16(model, watch=True).SerializeToString(), "cpu", None, optimise=False)
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: Array) -> dict[str, Array]:
        """Run [n, ...] images, one at a time or as many as the static batch has -> outputs by name."""
        size, parts = self.batch or 1, []
        for start in range(0, len(images), size):
            count = min(size, len(images) - start)
            part = images[(start + np.arange(size)) % len(images)]
            found = dict(zip(self._names, self._session.run(None, {self.input: part})))
            parts.append({name: found[name][:count] for name in self.outputs})
            for name, value in found.items():
                if name.startswith(WATCH):
                    self._see(name[len(WATCH) :], float(value), start)
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _see(self, name: str, size: float, image: int) -> None:
        if not size < ROUNDS_TO_INFINITY:  # NaN too
            self.worst.setdefault(name, image)
        self.largest[name] = max(self.largest.get(name, 0.0), size if size == size else float("inf"))

    def overflows(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return what is out of range in words, in the order of computation: weights, then "NODE reaches 9.1e+04 (white)".

        A value that is NaN or infinite only because one before it was is left out, unless nothing else is to be named.
        """
        found = [f"{node}: a weight is beyond it" for node in self.constants]
        first = [name for name in self._nodes if name in self.worst and np.isfinite(self.largest[name])]
        rest = [name for name in self._nodes if name in self.worst and not np.isfinite(self.largest[name])]
        for name in first or ([] if found else rest):
            size = self.largest[name]
            reaches = f"{size:.3g}" if np.isfinite(size) else "no finite value"
            found.append(f"{self._nodes[name]}: {reaches}, {names[self.worst[name]]}")
        return tuple(found)

    @property
    def beginnings(self) -> set[str]:
        """Nodes at which values leave FP16, whose own inputs were finite."""
        return {self._nodes[name] for name in self.worst if np.isfinite(self.largest[name])}

    @property
    def near(self) -> dict[str, float]:
        """Node -> share of FP16's range that its values use, largest first."""
        used: dict[str, float] = {}
        for name, size in self.largest.items():
            used[self._nodes[name]] = max(used.get(self._nodes[name], 0.0), size / FP16_MAX)
        return dict(sorted(used.items(), key=lambda item: -item[1]))


def node_names(model: onnx.ModelProto) -> dict[str, str]:
    """Return value -> name of the node that computes it, in the order of computation; a node without a name is told by its
    type and output.
    """
    return {value: node.name or f"{node.op_type} ({value})" for node in model.graph.node for value in node.output}


def broken_constants(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that read a constant with NaN or infinity in it."""
    from onnx import TensorProto, numpy_helper

    floats = (TensorProto.FLOAT16, TensorProto.FLOAT)
    broken = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type in floats and not np.isfinite(numpy_helper.to_array(tensor)).all()
    }
    names = node_names(model)
    return [names[node.output[0]] for node in model.graph.node if broken & set(node.input)]

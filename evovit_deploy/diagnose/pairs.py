"""Two precisions of one graph, node beside node, and the second made to take the first one's decisions.

What a model decides (which patches are kept, in which order) is discrete: after one near-tie that falls the other way, two graphs
compute on different tokens, and no difference says anything about rounding. So every value that a decision is taken by comes
from the reference, in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engines.emulate import emulate_as_fp16, emulate_bf16, emulate_fp16, has_bf16, types_of
from ..errors import InputError
from ..export import islands
from ..export.islands import HALVES

if TYPE_CHECKING:
    import onnx

__all__ = ["DECIDED", "Paired", "ValuePair", "constants_lost", "pair_graphs"]

DECIDED = "decided:"  # prefix of the inputs that take the reference's values
# What our FP16 exports compute in FP32 (docs/graph.md), by the module in the node's name.
WHOLE = re.compile(
    r"/(?:class_row|scores?|select|represent|reorganise|pool_tokens)/|class_attention/|^after_[^/]*/[A-Z]"
)
# They move values and change none, so there is nothing to measure. Scattering and choosing are told all the same.
MOVES = islands.MOVES - {"ScatterND", "ScatterElements", "Where", "Tile"}
DECISIONS = {"TopK", "ArgMax", "ArgMin", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "NonZero"}


@dataclass(frozen=True)
class ValuePair:
    """One floating-point value in both graphs.

    Attributes:
        node: Name of the node that computes it.
        op: Its type.
        reference, half: Name of the value in either graph.
        rounded: Whether it is half precision in the second.
        before: Numbers of the pairs that the node reads, in the order of :attr:`Paired.pairs`.
    """

    node: str
    op: str
    reference: str
    half: str
    rounded: bool
    before: tuple[int, ...]


@dataclass(frozen=True)
class Paired:
    """Both graphs, ready to run.

    Attributes:
        reference: FP32 graph.
        half: The other, in FP32 with a rounding after every operation; has an input ``decided:VALUE`` for every decision.
        pairs: Values in the order of computation.
        decided: Value of the reference -> input of ``half`` that takes it.
        lost: Node -> share of a weight's energy that half precision does not hold (1 where it overflows).
        kind: ``fp16`` or ``bf16``.
    """

    reference: onnx.ModelProto
    half: onnx.ModelProto
    pairs: tuple[ValuePair, ...]
    decided: dict[str, str]
    lost: dict[str, float]
    kind: str

    def free(self) -> onnx.ModelProto:
        """Return a copy of ``half`` that takes its own decisions."""
        import onnx

        result = onnx.ModelProto()
        result.CopyFrom(self.half)
        for node in result.graph.node:
            node.input[:] = [name.removeprefix(DECIDED) for name in node.input]
        own = [given for given in result.graph.input if not given.name.startswith(DECIDED)]
        del result.graph.input[:]
        result.graph.input.extend(own)
        return result


def pair_graphs(reference: onnx.ModelProto, half: onnx.ModelProto | None) -> Paired:
    """Put two precisions of a graph side by side, by the names of their nodes.

    Args:
        reference: FP32.
        half: With FP16 or BF16 types; may be another export, with Cast nodes of its own. None is the reference with weights and
            values in FP16, but for what exports of this package keep in FP32.

    Raises:
        InputError: Fewer than half of the nodes have a partner.
    """
    from onnx import TensorProto

    floats = {name for name, value in types_of(reference).items() if value == TensorProto.FLOAT}
    kind = "bf16" if half is not None and has_bf16(half) else "fp16"
    if half is None:
        keep = {node.name for node in reference.graph.node if WHOLE.search(node.name)}
        free = emulate_as_fp16(reference, keep)
        halves = {name for node in reference.graph.node if node.name not in keep for name in node.output} & floats
        half, named = free, reference
    else:
        named = half
        free = emulate_bf16(half) if kind == "bf16" else emulate_fp16(half)
        halves = {name for name, value in types_of(half).items() if value in HALVES}
    partner = {key: node for key, node in _by_key(named).items() if node.op_type != "Cast"}
    pairs: list[ValuePair] = []
    place: dict[str, int] = {}
    values: dict[str, str] = {}  # of the reference -> of the other
    deciding = {name for node in reference.graph.node if node.op_type in DECISIONS for name in node.input}
    results = {output.name for output in reference.graph.output}
    matched = total = 0
    for key, node in _by_key(reference).items():
        if node.op_type == "Cast":
            continue
        total += 1
        other = partner.get(key)
        if other is None or other.op_type != node.op_type:
            continue
        matched += 1
        for mine, theirs in zip(node.output, other.output):
            theirs = theirs.removesuffix(".exact")
            values[mine] = theirs
            if mine in floats:
                before = tuple(dict.fromkeys(place[name] for name in node.input if name in place))
                if node.op_type in MOVES and mine not in deciding and mine not in results:
                    if before:
                        place[mine] = before[0]
                    continue
                place[mine] = len(pairs)
                pairs.append(ValuePair(key, node.op_type, mine, theirs, theirs in halves, before))
    if matched < total / 2:
        raise InputError(
            f"only {matched} of {total} nodes have the same name and type in both files, so they cannot be compared layer by "
            "layer. Give the file alone, or the checkpoint that it was exported from."
        )
    forced, decided = _decide_as(free, reference, values, floats)
    return Paired(reference, forced, tuple(pairs), decided, constants_lost(reference, half), kind)


def _decide_as(
    model: onnx.ModelProto, reference: onnx.ModelProto, values: dict[str, str], floats: set[str]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy whose decisions are taken by values given as inputs; and value of the reference -> that input."""
    import onnx
    from onnx import TensorProto, helper

    computed = {name for node in reference.graph.node for name in node.output}
    wanted = {
        values[name]: name
        for node in reference.graph.node
        if node.op_type in DECISIONS
        for name in node.input
        if name in floats and name in computed and name in values
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    used = set()
    for node in result.graph.node:
        if node.op_type in DECISIONS:
            for i, name in enumerate(node.input):
                if name in wanted:
                    node.input[i] = f"{DECIDED}{name}"
                    used.add(name)
    for name in used:
        result.graph.input.append(helper.make_tensor_value_info(f"{DECIDED}{name}", TensorProto.FLOAT, None))
    return result, {wanted[name]: f"{DECIDED}{name}" for name in sorted(used)}


def constants_lost(reference: onnx.ModelProto, half: onnx.ModelProto) -> dict[str, float]:
    """Return node -> share of the energy of a weight, in its worst channel, that half precision does not hold, above 5%; 1 where
    it overflows."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT)
    mine = {tensor.name: tensor for tensor in reference.graph.initializer}
    theirs = {tensor.name: tensor for tensor in half.graph.initializer if tensor.data_type in halves}
    others = _by_key(half)
    lost: dict[str, float] = {}
    for key, node in _by_key(reference).items():
        other = others.get(key)
        if other is None or other.op_type != node.op_type:
            continue
        for a, b in zip(node.input, other.input):
            if a not in mine or b not in theirs:
                continue
            exact = np.atleast_1d(numpy_helper.to_array(mine[a]).astype(np.float64))
            rounded = np.atleast_1d(numpy_helper.to_array(theirs[b]).astype(np.float64))
            if exact.shape != rounded.shape or not exact.any():
                continue
            if not np.isfinite(rounded).all():
                lost[key] = 1.0
                continue
            # By output channel: a small one may matter as much as a large one.
            gone, all_of = (
                np.linalg.norm(part.reshape(-1, part.shape[-1]), axis=0) for part in (rounded - exact, exact)
            )
            share = float((gone / np.where(all_of > 0, all_of, 1)).max())
            if share > 0.05:
                lost[key] = max(lost.get(key, 0.0), min(share, 0.99))
    return lost


def _by_key(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Name -> node; a node without a name, or with one that occurs twice, by its type and output."""
    found: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        plain = f"{node.op_type} ({node.output[0]})"
        found[plain if not node.name or node.name in found else node.name] = node
    return found

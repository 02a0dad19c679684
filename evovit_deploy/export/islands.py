"""Islands: nodes of a half-precision graph that compute in FP32, with Cast nodes at their shores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..engines.emulate import types_of
from ..errors import InputError
from ..suggest import did_you_mean

if TYPE_CHECKING:
    import onnx

__all__ = ["HALVES", "MOVES", "candidates", "named", "with_islands"]

# They hold no arithmetic: where their input is FP32, so is their output, at no cost.
MOVES = {"Reshape", "Transpose", "Slice", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Identity", "Split", "Pad"}
MOVES |= {"Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements", "Concat", "Where", "Tile"}
HALVES = (10, 16)  # TensorProto.FLOAT16, BFLOAT16
TWIN = ".fp32"  # after the name of a node that moves values, where it does so in FP32 as well


def candidates(half: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that compute in half precision, in the order of computation."""
    halves = {name for name, kind in types_of(half).items() if kind in HALVES}
    return [
        node.name
        for node in half.graph.node
        if node.op_type not in MOVES and node.op_type != "Cast" and halves & {*node.input, *node.output}
    ]


def named(half: onnx.ModelProto, patterns: Sequence[str]) -> set[str]:
    """Return the nodes that patterns stand for: a node, everything under a module (``blocks.3/attn``), or with ``*``.

    Raises:
        InputError: A pattern that no node in half precision has.
    """
    known, found = candidates(half), set[str]()
    for pattern in patterns:
        matched = {
            name for name in known if name == pattern or name.startswith(f"{pattern}/") or fnmatchcase(name, pattern)
        }
        if not matched:
            modules = {name.rpartition("/")[0] for name in known} | {name.partition("/")[0] for name in known}
            raise InputError(
                f"island {pattern!r} is no node that computes in half precision, nor a module with one; names are those of the "
                f"ONNX nodes, such as {known[0]}.{did_you_mean(pattern, sorted(modules))}"
            )
        found |= matched
    return found


def with_islands(half: onnx.ModelProto, exact: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a copy of ``half`` in which some nodes compute in FP32.

    Args:
        half: Typed FP16 or BF16 graph.
        exact: The same graph in FP32, with the same node names; the islands take their weights from it.
        names: Of the nodes; those that only move values between them follow. What is FP32 already (the image, scores) they
            read as it is, and not as it is cast for half precision.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    types = types_of(half)
    halves = {name for name, found in types.items() if found in HALVES}
    floats = {name for name, found in types.items() if found == TensorProto.FLOAT}
    kind = next((t.data_type for t in half.graph.initializer if t.data_type in HALVES), TensorProto.FLOAT16)
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    weights = {tensor.name: tensor for tensor in exact.graph.initializer}
    exact_inputs = {node.name: list(node.input) for node in exact.graph.node if node.op_type != "Cast"}
    result = onnx.ModelProto()
    result.CopyFrom(half)
    del result.graph.node[:], result.graph.value_info[:]
    whole: dict[str, str] = {}  # half value -> the same in FP32
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()  # weights
    born: set[str] = set()  # FP32 values that were never rounded

    def constant(node: onnx.NodeProto, place: int) -> str:
        """The FP32 weight that a node reads at a place."""
        name = node.input[place]
        theirs = exact_inputs.get(node.name, [])
        tensor = weights.get(theirs[place]) if place < len(theirs) else None
        if tensor is None or tuple(tensor.dims) != tuple(stored[name].dims) or tensor.data_type != TensorProto.FLOAT:
            tensor = stored[name]
        new = f"{name}.fp32" if tensor is stored[name] else f"{tensor.name}.exact"
        if new not in made:
            made.add(new)
            array = numpy_helper.to_array(tensor).astype("float32")
            result.graph.initializer.append(numpy_helper.from_array(array, new))
        return new

    def widened(node: onnx.NodeProto, place: int) -> str:
        name = node.input[place]
        if name in whole:
            return whole[name]
        if name in stored:
            return constant(node, place)
        new = f"{name}.fp32"
        nodes.append(helper.make_node("Cast", [name], [new], f"{node.name}/Cast_in_{place}", to=TensorProto.FLOAT))
        whole[name] = new
        return new

    def widen(copy: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Let a copy of a node read and write FP32."""
        for place, name in enumerate(node.input):
            if name in halves or (name in stored and stored[name].data_type == kind):
                copy.input[place] = widened(node, place)
        for place, name in enumerate(node.output):
            if name in halves:
                whole[name] = copy.output[place] = f"{name}.fp32"
                born.add(whole[name])

    islands = set(names)
    for node in half.graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Cast":
            source, rounded = node.input[0], node.output[0]
            if source in whole:
                copy.input[0] = whole[source]
            elif source in floats and rounded in halves:  # the image, or what a part computes in FP32 as it is
                whole[rounded] = source
                born.add(source)
        if node.name in islands:
            widen(copy, node)
            nodes.append(copy)
            for place, name in enumerate(node.output):
                if name in halves:
                    nodes.append(
                        helper.make_node("Cast", [whole[name]], [name], f"{node.name}/Cast_out_{place}", to=kind)
                    )
            continue
        nodes.append(copy)
        if node.op_type in MOVES and any(whole.get(name) in born for name in node.input):
            twin = onnx.NodeProto.FromString(node.SerializeToString())
            twin.name = f"{node.name}{TWIN}"
            widen(twin, node)
            nodes.append(twin)
    result.graph.node.extend(nodes)
    return _without_unused(result)


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop Casts, moves and weights that nothing reads any more."""
    while True:
        read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
        kept = [node for node in model.graph.node if read & set(node.output)]
        if len(kept) == len(model.graph.node):
            break
        del model.graph.node[:]
        model.graph.node.extend(kept)
    names = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if node.name.endswith(TWIN) and node.name.removesuffix(TWIN) not in names:
            node.name = node.name.removesuffix(TWIN)  # in half precision it is gone
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model

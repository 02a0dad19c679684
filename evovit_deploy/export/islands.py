"""Islands: nodes of a half-precision graph that compute in FP32, with Cast nodes at their shores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..errors import InputError
from ..suggest import did_you_mean

if TYPE_CHECKING:
    import onnx

__all__ = ["candidates", "named", "with_islands"]

# They hold no arithmetic: where their input is FP32, so is their output, at no cost.
MOVES = {"Reshape", "Transpose", "Slice", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Identity", "Split", "Pad"}
MOVES |= {"Gather", "GatherND", "Concat"}


def candidates(half: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that compute in half precision, in the order of computation."""
    halves = _halves(half)
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
        names: Of the nodes; those that only move values between them follow.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    halves = _halves(half)
    kind = next(
        (t.data_type for t in half.graph.initializer if t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)),
        TensorProto.FLOAT16,
    )
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    weights = {tensor.name: tensor for tensor in exact.graph.initializer}
    exact_inputs = {node.name: list(node.input) for node in exact.graph.node if node.op_type != "Cast"}
    outputs = {output.name for output in half.graph.output}
    result = onnx.ModelProto()
    result.CopyFrom(half)
    del result.graph.node[:], result.graph.value_info[:]
    whole: dict[str, str] = {}  # half value -> the same in FP32
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()

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

    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in half.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    islands = set(names)
    for node in half.graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Cast" and node.input[0] in whole:
            copy.input[0] = whole[node.input[0]]
        data = [name for name in node.input if name in halves and name not in stored]
        moves = node.op_type in MOVES and data and all(name in whole and whole[name] in made for name in data)
        if node.name not in islands and not moves:
            nodes.append(copy)
            continue
        for place, name in enumerate(node.input):
            if name in halves or (name in stored and stored[name].data_type == kind):
                copy.input[place] = widened(node, place)
        after = []
        for place, name in enumerate(node.output):
            if name in halves:
                whole[name] = copy.output[place] = f"{name}.fp32"
                made.add(whole[name])
                if name in outputs or consumers.get(name):
                    after.append(
                        helper.make_node("Cast", [whole[name]], [name], f"{node.name}/Cast_out_{place}", to=kind)
                    )
        nodes += [copy, *after]
    result.graph.node.extend(nodes)
    return _without_unused(result)


def _halves(model: onnx.ModelProto) -> set[str]:
    """Names of the half-precision values that nodes compute or the graph takes."""
    import onnx
    from onnx import TensorProto

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return {
        info.name
        for info in (*graph.value_info, *graph.input, *graph.output)
        if info.type.tensor_type.elem_type in kinds
    }


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop Casts and weights that nothing reads any more."""
    while True:
        read = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
        kept = [node for node in model.graph.node if read & set(node.output)]
        if len(kept) == len(model.graph.node):
            break
        del model.graph.node[:]
        model.graph.node.extend(kept)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    return model

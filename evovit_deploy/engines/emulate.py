"""Half precision on a CPU as a GPU has it: the same graph in FP32, rounded to the half type after every operation.

ONNX Runtime's CPU provider has no BF16 kernels, so a BF16 export could not be proven on a laptop. Of many FP16 operators it has
none either and computes them in FP32, without rounding between two of them: a value beyond FP16's range (65504) can pass unseen
there, and is infinity on a GPU. Accumulating in FP32 and rounding each result is what tensor cores do, up to the order of a sum.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from .unfused import stands_for, unfused

if TYPE_CHECKING:
    import onnx

__all__ = [
    "FP16_MAX",
    "WATCH",
    "emulate_as_fp16",
    "emulate_bf16",
    "emulate_fp16",
    "has_bf16",
    "has_fp16",
    "watched",
    "widen",
]

FP16_MAX = 65504.0
WATCH = "largest:"  # prefix of the outputs that tell the largest magnitude of a value


def has_bf16(model: onnx.ModelProto) -> bool:
    """Return whether any constant of the graph is BF16."""
    import onnx

    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer)


def has_fp16(model: onnx.ModelProto) -> bool:
    """Return whether any constant of the graph is FP16."""
    import onnx

    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


def emulate_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every BF16 tensor is FP32 holding BF16 values."""
    import onnx

    return _emulate(model, onnx.TensorProto.BFLOAT16, watch=False)


def emulate_fp16(model: onnx.ModelProto, *, watch: bool = False) -> onnx.ModelProto:
    """Return a copy in which every FP16 tensor is FP32 holding FP16 values; what is out of range is infinity.

    Args:
        model: With FP16 types in the graph.
        watch: Add an output ``largest:NAME`` (scalar float32) for every FP16 tensor NAME that a node computes: its largest
            magnitude before rounding.
    """
    import onnx

    return _emulate(model, onnx.TensorProto.FLOAT16, watch=watch)


def emulate_as_fp16(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy of an FP32 graph with weights and values rounded to FP16, but for those of the nodes named in ``keep``."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    result = _emulate(model, TensorProto.FLOAT16, watch=False, typed=TensorProto.FLOAT, keep=keep)
    read = {name for node in model.graph.node if node.name not in keep for name in node.input}
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name in read:
            with np.errstate(over="ignore"):
                rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return result


def watched(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an FP32 graph with an output ``largest:NODE`` ([C] float32) for every node with a float result: its
    largest magnitudes along its last axis.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        i.name: len(i.type.tensor_type.shape.dim)
        for i in (*graph.value_info, *graph.output)
        if i.type.tensor_type.elem_type == TensorProto.FLOAT and i.type.tensor_type.HasField("shape")
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for rank in {max(rank - 1, 0) for rank in ranks.values()}:
        axes = np.arange(rank, dtype=np.int64)
        result.graph.initializer.append(numpy_helper.from_array(axes, f"{WATCH}axes {rank}"))
    for node in model.graph.node:
        if node.output[0] in ranks and (rank := ranks[node.output[0]]) > 0:
            size, told = f"{node.output[0]}.size", f"{WATCH}{node.name}"
            result.graph.node.append(helper.make_node("Abs", [node.output[0]], [size]))
            over = helper.make_node(
                "ReduceMax", [size, f"{WATCH}axes {rank - 1}"], [told], keepdims=0, noop_with_empty_axes=1
            )
            result.graph.node.append(over)
            result.graph.output.append(helper.make_tensor_value_info(told, TensorProto.FLOAT, None))
    return result


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return value -> element type, of everything that the graph takes, computes or gives, as far as it can be told."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.input, *graph.output)}


def _emulate(
    model: onnx.ModelProto,
    kind: int,
    *,
    watch: bool,
    rounding: bool = True,
    typed: int | None = None,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """``typed`` is the element type that is taken for half, if not ``kind``; nodes named in ``keep`` are not rounded."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if rounding:
        model = unfused(model)
    fp32 = TensorProto.FLOAT
    rounded_to, kind = kind, kind if typed is None else typed
    half = {name for name, found in types_of(model).items() if found == kind}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:], result.graph.node[:], result.graph.initializer[:]
    for info in (*result.graph.input, *result.graph.output):
        if info.name in half:
            info.type.tensor_type.elem_type = fp32
    for tensor in model.graph.initializer:
        if tensor.data_type == kind:
            tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        result.graph.initializer.append(tensor)
    for node in model.graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == kind:
                attribute.i = fp32
            elif attribute.t.data_type == kind:  # of Constant and ConstantOfShape
                value = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))
        after = []
        for i, value in enumerate(node.output):
            if value in half and rounding and stands_for(node.name) not in keep:
                exact = node.output[i] = f"{value}.exact"
                after.append(helper.make_node("Cast", [exact], [f"{value}.half"], to=rounded_to))
                after.append(helper.make_node("Cast", [f"{value}.half"], [value], to=fp32))
                if watch:
                    after.append(helper.make_node("Abs", [exact], [f"{value}.size"]))
                    after.append(helper.make_node("ReduceMax", [f"{value}.size"], [f"{WATCH}{value}"], keepdims=0))
                    result.graph.output.append(helper.make_tensor_value_info(f"{WATCH}{value}", fp32, []))
        result.graph.node.extend([node, *after])
    return result


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every FP16 or BF16 tensor is FP32, not rounded; weights keep the values that are stored."""
    from onnx import TensorProto

    kind = TensorProto.BFLOAT16 if has_bf16(model) else TensorProto.FLOAT16
    return _emulate(model, kind, watch=False, rounding=False)

"""BF16 on a machine without BF16 kernels: the same graph in FP32, rounded to BF16 after every operation.

ONNX Runtime's CPU provider has no BF16 kernels, so a BF16 export could not be proven on a laptop. Accumulating in FP32 and
rounding each result is what tensor cores do too, up to the order of a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["emulate_bf16", "has_bf16"]


def has_bf16(model: onnx.ModelProto) -> bool:
    """Return whether any constant of the graph is BF16."""
    import onnx

    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in model.graph.initializer)


def emulate_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every BF16 tensor is FP32 holding BF16 values."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    bf16, fp32 = TensorProto.BFLOAT16, TensorProto.FLOAT
    typed = onnx.shape_inference.infer_shapes(model)
    half = {info.name for info in typed.graph.value_info if info.type.tensor_type.elem_type == bf16}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:], result.graph.node[:], result.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_type == bf16:
            tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        result.graph.initializer.append(tensor)
    for node in model.graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == bf16:
                    attribute.i = fp32
        rounded = []
        for i, value in enumerate(node.output):
            if value in half:
                node.output[i] = f"{value}.exact"
                rounded.append(helper.make_node("Cast", [f"{value}.exact"], [f"{value}.bf16"], to=bf16))
                rounded.append(helper.make_node("Cast", [f"{value}.bf16"], [value], to=fp32))
        result.graph.node.extend([node, *rounded])
    return result

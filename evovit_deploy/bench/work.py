"""The work a model does for one image, counted in its graph: multiply-accumulates, and bytes that have to be moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..manifest.onnx_file import load_onnx

if TYPE_CHECKING:
    import onnx

    from ..engines import TorchEngine

__all__ = ["Work", "module_work", "onnx_work"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Work:
    """Of one image.

    Attributes:
        macs: Multiply-accumulates of matrix products and convolutions. Softmax, norms and activations are not counted, as in
            the paper.
        weight_bytes: Weights of these, read once per batch; None where only the products were counted.
        activation_bytes: What these read and write beside weights, as if everything between them were fused into them.
    """

    macs: float
    weight_bytes: float | None = None
    activation_bytes: float | None = None


def onnx_work(path: Path) -> Work | None:
    """Count an ONNX file at batch 1; None if a product's shape cannot be inferred."""
    import onnx

    model = load_onnx(path)
    for value in model.graph.input:
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_value:
            batch.dim_value = 1
    images = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return None
    weights = {tensor.name: (tuple(tensor.dims), _item_size(tensor.data_type)) for tensor in graph.initializer}
    shapes: Shapes = {name: shape for name, (shape, _) in weights.items()}
    sizes = {name: size for name, (_, size) in weights.items()}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        sizes[value.name] = _item_size(kind.elem_type)
    macs = weight_bytes = activation_bytes = 0
    for node in graph.node:
        if node.op_type not in COUNTED:
            continue
        names = (*node.input, node.output[0])
        if any(name and (name not in shapes or 0 in shapes[name]) for name in names):
            return None
        macs += COUNTED[node.op_type](node, shapes)
        for name in filter(None, names):
            count = math.prod(shapes[name]) * sizes[name]
            if name in weights:
                weight_bytes += count
            else:
                activation_bytes += count
    return Work(macs / images, weight_bytes, activation_bytes / images)


def module_work(engine: TorchEngine) -> Work | None:
    """Count a PyTorch module by running it once on a CPU or GPU; products only.

    Attention is run in its plain form, as matrix products: which of the fused forms torch counts differs between its versions
    (2.14 misses the CPU's). Of products with a vector it counts none.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.zeros((1, *engine.spec.image_shape), dtype=getattr(torch, engine.spec.input), device=engine.device)
    module = getattr(engine.module, "_orig_mod", engine.module)  # what torch.compile wraps
    if module is None:
        return None
    vectors = {torch.ops.aten.mv: _matrix_vector, torch.ops.aten.dot: _matrix_vector}
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=vectors) as counter,
    ):
        module(images)
    return Work(counter.get_total_flops() / 2)


def _matrix_vector(first: tuple[int, ...], *rest: Any, **options: Any) -> int:
    """[m, k] x [k], or [k] x [k]: floating-point operations, twice the multiply-accumulates."""
    return 2 * math.prod(first)


def _item_size(kind: int) -> int:
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    """[..., m, k] x [..., k, n]: every element of the result takes k."""
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Weights are [out, in / groups, kh, kw]."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Heads joined or apart, every query and every element of the result takes as many as there are keys."""
    return (math.prod(shapes[node.input[0]]) + math.prod(shapes[node.output[0]])) * shapes[node.input[1]][-2]


COUNTED: dict[str, Any] = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv, "Attention": _attention}

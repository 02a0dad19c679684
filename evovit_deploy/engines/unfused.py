"""The operator `Attention` as the products and the softmax that it stands for, each of which can be rounded and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

__all__ = ["stands_for", "unfused"]

WITHIN = "/within/"  # after the name of an Attention, before that of a step in it


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with every `Attention` as MatMul, Softmax and MatMul; :func:`stands_for` tells what their names stand for.

    A runtime may keep q k^T in FP32 within one kernel, or round it to FP16: what holds here holds in both. Forms that evovit and
    PyTorch's exporter do not write (joined heads, grouped heads, a mask of booleans, caches) stay as they are.
    """
    import onnx
    from onnx import helper

    if all(node.op_type != "Attention" for node in model.graph.node):
        return model
    graph = onnx.shape_inference.infer_shapes(model).graph
    tensors = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.input)}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        scale = _scale(node, tensors)
        if scale is None:
            result.graph.node.append(node)
            continue
        (q, k, v), bias, out = node.input[:3], node.input[3:], node.output[0]
        steps: list[tuple[str, list[str], str, dict[str, Any]]] = []
        if scale != 1:  # its root into either side, as the operator is defined
            root = helper.make_tensor(f"{out}.root", tensors[q].elem_type, [], [scale**0.5])
            result.graph.initializer.append(root)
            steps += [("Mul", [q, root.name], "scaled", {}), ("Mul", [k, root.name], "scaled_keys", {})]
            q, k = f"{out}.scaled", f"{out}.scaled_keys"
        steps.append(("Transpose", [k], "keys", {"perm": [0, 1, 3, 2]}))
        steps.append(("MatMul", [q, f"{out}.keys"], "logits", {}))
        if bias:
            steps.append(("Add", [f"{out}.logits", bias[0]], "biased", {}))
        steps.append(("Softmax", [f"{out}.{steps[-1][2]}"], "shares", {"axis": -1}))
        for kind, inputs, made, attributes in steps:
            name = f"{node.name}{WITHIN}{made}" if node.name else ""
            result.graph.node.append(helper.make_node(kind, inputs, [f"{out}.{made}"], name, **attributes))
        result.graph.node.append(helper.make_node("MatMul", [f"{out}.shares", v], [out], node.name))
    return result


def stands_for(name: str) -> str:
    """Return the name of the `Attention` that a node of :func:`unfused` is a step of; that of any other node as it is."""
    return name.partition(WITHIN)[0]


def _scale(node: onnx.NodeProto, tensors: dict[str, onnx.TypeProto.Tensor]) -> float | None:
    """What the logits of a plain attention over [B, H, N, D] are multiplied by; None for any other node."""
    from onnx import TensorProto

    given = {attribute.name: attribute for attribute in node.attribute}
    scale = given.pop("scale", None)
    other = any(attribute.i or attribute.f for attribute in given.values())
    if node.op_type != "Attention" or other or not 3 <= len(node.input) <= 4 or len(node.output) != 1:
        return None
    read = [tensors.get(name) for name in node.input]
    q, k = read[:2]
    if q is None or k is None or len(q.shape.dim) != 4 or q.shape.dim[1] != k.shape.dim[1]:
        return None
    if len(read) == 4 and (read[3] is None or read[3].elem_type == TensorProto.BOOL):
        return None
    width = q.shape.dim[3].dim_value
    factor = float(scale.f) if scale is not None else width**-0.5 if width else 0.0
    return factor if factor > 0 else None

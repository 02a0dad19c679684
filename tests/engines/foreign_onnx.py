"""ONNX files as other tools make them, and images for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

CLASSES, SIZE = 5, 4


def make_onnx(
    path: Path,
    shape: list[Any] | None = None,
    kind: int = TensorProto.FLOAT,
    *,
    extra_input: bool = False,
    extra_outputs: bool = False,
    output_shape: list[Any] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A model of another tool: logits = the channel means times a matrix."""
    shape = shape or ["n", 3, SIZE, SIZE]
    channels = shape[3 if kind == TensorProto.UINT8 else 1]
    weight = np.random.default_rng(0).normal(size=(channels, CLASSES)).astype(np.float32)
    axes = [1, 2] if kind == TensorProto.UINT8 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", kind, shape)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, output_shape or [shape[0], CLASSES])]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        nodes.append(helper.make_node("Identity", ["more"], ["unused"]))
    if extra_outputs:
        nodes += [
            helper.make_node("Identity", ["m"], ["features"]),
            helper.make_node("ReduceSum", ["m"], ["total"], keepdims=0),
        ]
        outputs += [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [shape[0], 3]),
        ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], axes),
        helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel()),
    ]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def random_images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)

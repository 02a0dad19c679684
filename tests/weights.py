"""Models that differ in weights only are exported once, and get their weights afterwards: that is where the time goes."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from .exports import UnknownAttribute, structure

MADE: dict[str, tuple[bytes, dict[str, str]]] = {}


def install(put: Callable[[Any, str, Any], None]) -> None:
    """Let the exporter run once for a structure; ``put`` is ``setattr``, or that of ``monkeypatch``, which takes it back."""
    from evovit_deploy.export import graph as graphs
    from evovit_deploy.export import onnx as module_

    export = graphs.to_onnx

    @functools.wraps(export)
    def to_onnx(module, example, names, **options):
        if not options["dynamic"]:  # a class token for the whole batch is a constant then
            return export(module, example, names, **options)
        try:
            attributes = re.sub(r"('eps', )[\d.e-]+", r"\1", structure(module))
        except UnknownAttribute:
            return export(module, example, names, **options)
        key = repr((attributes, next(module.parameters()).dtype, names, options, example.shape, example.dtype))
        if key not in MADE:
            MADE[key] = template(module, lambda part: export(part, example, names, **options))
        data, sources = MADE[key]
        model = onnx.ModelProto.FromString(data)
        parts = parts_of(module)
        for tensor in model.graph.initializer:
            if tensor.name in sources:
                value = parts[sources[tensor.name]].contiguous().numpy()
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        for node in model.graph.node:
            if node.op_type == "LayerNormalization":
                path = node.name.rpartition("/")[0].replace("/", ".")
                eps = next(p.eps for n, p in module.named_modules() if isinstance(p, nn.LayerNorm) and path.endswith(n))
                next(a for a in node.attribute if a.name == "epsilon").f = eps
        return model

    put(graphs, "to_onnx", to_onnx)
    put(module_, "to_onnx", to_onnx)


def parts_of(module) -> dict[str, torch.Tensor]:
    """Everything that the exporter makes a constant of: parameters, transposed ones, and the two parts of the positions."""
    parts = {}
    for name, parameter in module.named_parameters():
        parts[name] = parameter
        if parameter.dim() == 2:
            parts[f"{name}.T"] = parameter.t()
    prefix = module.cls_token.shape[1]
    parts["first"], parts["places"] = module.pos_embed[:, :prefix], module.pos_embed[:, prefix:]
    parts["first token"] = module.cls_token + parts["first"]
    return parts


def template(module, export):
    """An export of the module with random weights, and which of its constants are which part."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    model = export(other)
    sources = {}
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        for name, part in parts_of(other).items():
            if part.shape == value.shape and part.numpy().dtype == value.dtype and np.array_equal(part, value):
                sources.setdefault(tensor.name, name)
        whole = value.dtype.kind != "f" or np.array_equal(value, value.round())  # positions, masks
        assert tensor.name in sources or whole or value.size < 32, f"{tensor.name} {value.shape} is no parameter"
    return model.SerializeToString(), sources

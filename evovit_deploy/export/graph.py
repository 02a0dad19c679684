"""PyTorch module to ONNX graph: exported, named, trimmed to the outputs that were asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ExportError, translate
from ..machine.quiet import quiet

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = [
    "ATTENTION_OPSET",
    "BF16_OPSET",
    "DEFAULT_OPSET",
    "OPSETS",
    "AttentionForm",
    "drop_outputs",
    "name_nodes",
    "to_onnx",
]

AttentionForm = Literal["plain", "operator"]
OPSETS = range(18, 24)
DEFAULT_OPSET = 20  # the first with Gelu as one node
BF16_OPSET = 22  # the first in which Conv takes BF16
ATTENTION_OPSET = 23  # the first with Attention as one node
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def to_onnx(
    module: torch.nn.Module,
    example: torch.Tensor,
    output_names: Sequence[str],
    *,
    dynamic: bool,
    opset: int,
    attention: AttentionForm = "plain",
) -> onnx.ModelProto:
    """Export with ``torch.onnx.export(dynamo=True)``.

    Args:
        module: Eval mode, ``forward(images) -> tuple`` in the order of ``output_names``.
        example: An input batch; at least two images if ``dynamic``, as torch.export specialises on one.
        output_names: ONNX output names.
        dynamic: Whether the batch axis is dynamic, from 1.
        opset: ONNX opset, one of :data:`OPSETS`.
        attention: See :class:`.ExportOptions`.

    Raises:
        ExportError: An opset outside :data:`OPSETS`, or whatever the exporter reports.
    """
    import torch

    from ..models.ops import ONNX, ONNX_ATTENTION, lowered, onnx_translations
    from .sparing import spared

    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported; valid: {OPSETS.start} to {OPSETS.stop - 1}.")
    shapes: Any = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    with (
        quiet(*_LOGGERS),
        lowered(module, ONNX if attention == "plain" else ONNX_ATTENTION),
        spared(),
        translate(ExportError, "torch.onnx could not export the model"),
    ):
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["images"],
            output_names=list(output_names),
            opset_version=opset,
            verbose=False,
            custom_translation_table=onnx_translations(opset),
        )
        assert program is not None
        model = program.model_proto
    name_nodes(model)
    return model


def name_nodes(model: onnx.ModelProto) -> None:
    """Name every node after the module it comes from, such as ``blocks.3/attn/qkv/MatMul``, in place.

    Modules that belong to no block are preceded by the last block before them: ``after_blocks.3/select/TopK``. The
    exporter's own metadata, which holds source paths, is read for this and then removed.
    """
    counts: Counter[str] = Counter()
    after = ""
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        scope = _scope(node)
        block = re.match(r"blocks\.\d+", scope)
        if block:
            after = f"after_{block[0]}"
            parts = [block[0], *scope[len(block[0]) :].strip(".").split(".")]
        else:
            parts = [after, scope]
        name = "/".join(part for part in (*parts, node.op_type) if part)
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        for value in node.input:
            if re.fullmatch(r"val_\d+", value):
                renamed.setdefault(value, f"{node.name}.constant_{value[4:]}")
        del node.metadata_props[:]
    constants = {tensor.name for tensor in model.graph.initializer} & set(renamed)
    for tensor in model.graph.initializer:
        if tensor.name in constants:
            tensor.name = renamed[tensor.name]
    for node in model.graph.node:
        node.input[:] = [renamed[value] if value in constants else value for value in node.input]
    graph = model.graph
    for item in (model, graph, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]


def _scope(node: onnx.NodeProto) -> str:
    """Dotted name of the module a node comes from; empty for the model itself."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)
            return "" if len(scopes) < 2 or scopes[-2].startswith("_") else scopes[-2]
    return ""


def drop_outputs(model: onnx.ModelProto, keep: Sequence[str]) -> onnx.ModelProto:
    """Return a copy with only the outputs ``keep`` and without the nodes and constants that nothing reads any more."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = ir.from_proto(model)
    for value in [value for value in graph.graph.outputs if value.name not in keep]:
        graph.graph.outputs.remove(value)
    return ir.to_proto(RemoveUnusedNodesPass()(graph).model)

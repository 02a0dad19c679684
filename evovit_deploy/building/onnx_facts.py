"""What a build has to know about an ONNX file, checked in Python first: TensorRT can abort the process on a broken one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import manifest as manifests
from ..classes.scores import scores_output
from ..errors import ModelFileError
from ..manifest.onnx_file import load_onnx
from ..storage.files import sha256

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxFacts", "read_onnx"]

_LAYOUT = {"Cast", "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Expand", "Identity", "Split"}
_BETWEEN = _LAYOUT | {"Mul", "Div", "Add", "Sub", "Concat"}  # what may stand between q k^T, softmax and a v
_ROW = _BETWEEN | {"ReduceSum"}  # and before the softmax of a class row
_WEIGHTED = ("MatMul", "Gemm", "Conv", "Attention")
SCORES = ("fp32", "fp16", "bf16", "double")
_FLOATS = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16"}


@dataclass(frozen=True)
class OnnxFacts:
    """An ONNX file that TensorRT can be given.

    Attributes:
        path: The file.
        sha256: Of the file.
        input_name: Of the image input.
        image_shape: [3, S, S] or [S, S, 3].
        image_input: ``float32`` or ``uint8``.
        batch: Static batch size, or None.
        outputs: Name -> shape, batch first (None where dynamic).
        scores: The output that holds the class scores, or None.
        precision: What most weights are: ``fp32``, ``fp16``, ``bf16``.
        manifest: Of evovit, or None.
        attentions: Node names of the softmax of every full attention.
        selection: Node names of token selection: class attention, scores, ranks, gathers and restores.
        weighted: Node name -> type of its first input, for every MatMul, Gemm, Conv and Attention.
        external: Whether weights lie in other files.
    """

    path: Path
    sha256: str
    input_name: str
    image_shape: tuple[int, int, int]
    image_input: str
    batch: int | None
    outputs: dict[str, tuple[int | None, ...]]
    scores: str | None
    precision: str
    manifest: dict[str, Any] | None
    attentions: tuple[str, ...]
    selection: frozenset[str]
    weighted: dict[str, str] = field(repr=False)
    external: bool = False

    @property
    def num_classes(self) -> int:
        """Classes; 0 where no output says."""
        return 0 if self.scores is None else self.outputs[self.scores][-1] or 0

    @property
    def image_size(self) -> int:
        """S, pixels."""
        return self.image_shape[1]


def read_onnx(path: Path) -> OnnxFacts:
    """Read and check an ONNX file.

    Raises:
        EngineError: A file of a newer evovit-deploy.
        ModelFileError: No such file, not ONNX, types or shapes that do not fit, or not one batch of images with only the
            batch dynamic. The message names the node.
    """
    import onnx

    export = "Export the checkpoint with: evovit export CKPT"
    model = load_onnx(path, fix=export)
    if not model.graph.node or not model.graph.input or not model.graph.output:
        raise ModelFileError(f"{path} is not an ONNX model: it has no graph. {export}")
    try:
        onnx.checker.check_model(str(path))
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # checker and shape inference raise classes without a common base
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{path} is not valid ONNX: {reason}. {export}") from error
    _name_nodes(model)
    image = _image_input(model, path, export)
    graph = model.graph
    constants = _constants(model)
    attentions, rows = _attentions(graph, constants)
    types = _types(typed)
    weights = [t for t in graph.initializer if len(t.dims) > 1]
    sizes: dict[str, int] = defaultdict(int)
    for tensor in weights:
        size = 1
        for dim in tensor.dims:
            size *= dim
        sizes[_FLOATS.get(onnx.TensorProto.DataType.Name(tensor.data_type), "other")] += size
    return OnnxFacts(
        path=path,
        sha256=sha256(path),
        outputs={value.name: _shape(value) for value in graph.output},
        scores=scores_output(v.name for v in graph.output if types[v.name] in SCORES and len(_shape(v)) == 2),
        precision=max((k for k in sizes if k != "other"), key=lambda k: sizes[k], default="unknown"),
        manifest=manifests.read({entry.key: entry.value for entry in model.metadata_props}, str(path)),
        attentions=tuple(attentions),
        selection=frozenset(_selection(graph, constants, rows)),
        weighted={n.name: types.get(n.input[0], "unknown") for n in graph.node if n.op_type in _WEIGHTED},
        external=any(t.data_location == t.EXTERNAL for t in graph.initializer),
        **image,
    )


def _name_nodes(model: onnx.ModelProto) -> None:
    """Nodes of other exporters may be nameless; the same names are used here as TensorRT makes up, where it matters."""
    for i, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"node_of_{node.output[0]}" if node.output else f"node_{i}"


def _image_input(model: onnx.ModelProto, path: Path, export: str) -> dict[str, Any]:
    """The one image input, as keywords of :class:`OnnxFacts`."""
    import onnx

    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialisers]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelFileError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one. {export}")
    value = inputs[0]
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    shape = _shape(value)
    wanted = {"FLOAT": "float32", "UINT8": "uint8"}
    shown = f"{kind.lower()} [{', '.join('dynamic' if s is None else str(s) for s in shape)}]"
    if kind not in wanted or len(shape) != 4 or None in shape[1:]:
        raise ModelFileError(
            f"{path}: input {value.name} is {shown}; valid: [B, 3, S, S] float32 or [B, S, S, 3] uint8, where only B is "
            f"dynamic. {export}"
        )
    rest = tuple(int(s or 0) for s in shape[1:])
    square = rest[1:] if kind == "FLOAT" else rest[:2]
    channels = rest[0] if kind == "FLOAT" else rest[2]
    if channels != 3 or square[0] != square[1]:
        raise ModelFileError(
            f"{path}: input {value.name} is {shown}; it must be a batch of square RGB images. {export}"
        )
    return {"input_name": value.name, "image_shape": rest, "image_input": wanted[kind], "batch": shape[0]}


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def _types(model: onnx.ModelProto) -> dict[str, str]:
    import onnx

    name = onnx.TensorProto.DataType.Name
    graph = model.graph
    types = {v.name: name(v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output, *graph.value_info)}
    types.update({tensor.name: name(tensor.data_type) for tensor in graph.initializer})
    return {value: _FLOATS.get(kind, kind.lower()) for value, kind in types.items()}


def _constants(model: onnx.ModelProto) -> set[str]:
    """Values that do not depend on the images."""
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        if all(value in fixed for value in node.input):
            fixed.update(node.output)
    return fixed


def _attentions(graph: onnx.GraphProto, constants: set[str]) -> tuple[list[str], list[onnx.NodeProto]]:
    """Names of the softmax of every full attention, and the softmax nodes of class rows.

    Both have a product of two activations before them; only a full attention has one after it too.
    """
    producers = {value: node for node in graph.node for value in node.output}
    consumers = defaultdict(list)
    for node in graph.node:
        for value in node.input:
            consumers[value].append(node)

    def follow(value: str, step: Any) -> bool:
        """Return whether a product of two activations is reached from ``value`` through layout and scaling."""
        waiting, seen = [value], set()
        while waiting:
            current = waiting.pop()
            for node, values in step(current):
                if _is_product(node, constants):
                    return True
                if node.op_type in _ROW and node.name not in seen:
                    seen.add(node.name)
                    waiting += [v for v in values if v not in constants]
        return False

    def back(value: str) -> list[Any]:
        return [(producers[value], producers[value].input)] if value in producers else []

    def ahead(value: str) -> list[Any]:
        return [(node, node.output) for node in consumers[value] if node.op_type in _LAYOUT | {"MatMul"}]

    attentions, rows = [], []
    for node in graph.node:
        if node.op_type == "Attention":
            attentions.append(node.name)
        elif node.op_type == "Softmax" and follow(node.input[0], back):
            if follow(node.output[0], ahead):
                attentions.append(node.name)
            else:
                rows.append(node)
    return attentions, rows


def _is_product(node: onnx.NodeProto, constants: set[str]) -> bool:
    """Whether a node multiplies two activations: MatMul, or the Mul of a product written as Mul and ReduceSum."""
    return node.op_type in ("MatMul", "Mul") and not set(node.input) & constants


def _selection(graph: onnx.GraphProto, constants: set[str], rows: list[onnx.NodeProto]) -> set[str]:
    """Names of the nodes that decide which tokens are kept, and that carry them away and back.

    Scores start at the class rows. What is computed from nothing but scores and constants is a score too; a node that
    also reads tokens moves them, belongs to the selection, and gives tokens again.
    """
    if not rows:
        return set()
    names = {node.name for node in rows}
    scores = {value for node in rows for value in node.output}
    for node in graph.node:
        inputs = set(node.input) - constants
        if inputs & scores:
            names.add(node.name)
            if inputs <= scores:
                scores.update(node.output)
    # Backwards from the class rows, as far as it serves nothing else: q_cls k^T and the slice of q.
    producers = {value: node for node in graph.node for value in node.output}
    readers = defaultdict(set)
    for node in graph.node:
        for value in node.input:
            readers[value].add(node.name)
    waiting = [value for node in rows for value in node.input]
    while waiting:
        before = producers.get(waiting.pop())
        if before is None or before.name in names or not all(readers[value] <= names for value in before.output):
            continue
        if before.op_type in _ROW or _is_product(before, constants):
            names.add(before.name)
            waiting += before.input
    return names

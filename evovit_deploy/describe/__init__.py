"""What a file holds, as plain dictionaries: checkpoints, ONNX files and TensorRT engines. Nothing here prints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, ModelFileError, RecipeError
from ..manifest import KEY, read
from ..manifest.onnx_file import load_onnx
from ..recipes import Recipe
from ..storage.files import sha256
from ..storage.missing import no_such_file
from .recipe import describe_schedule, describe_sizes

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..checkpoint.options import CheckpointOptions

__all__ = ["describe", "describe_checkpoint", "describe_onnx", "describe_schedule"]

_FLOATS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


def describe(path: str | Path, options: CheckpointOptions | None = None) -> dict[str, Any]:
    """Describe a checkpoint, an ONNX file or an engine; ``kind`` in the result says which it is.

    Args:
        path: ``.onnx``; an engine, by its suffix; or a checkpoint of any form.
        options: How a checkpoint is understood; None is the defaults.

    Raises:
        CheckpointError: The checkpoint cannot be read or recognised.
        ModelFileError: The ONNX file, the plan or its manifest cannot be read.
        EngineError: A plan that is not the one that its manifest describes.
        InputError: Options of a checkpoint for another file.
    """
    from ..checkpoint.options import CheckpointOptions
    from ..engines.registry import backend_of

    path = Path(path)
    row = backend_of(path)
    options = options or CheckpointOptions()
    if row is not None and row.kind != "checkpoint":
        options.refuse_for(path)
    if row is not None and row.kind == "onnx":
        return describe_onnx(path)
    if row is not None and row.kind == "engine":
        document = _file(path, row.name) if row.describe is None else row.describe(path)
        return {**document, **_schedule((document.get("manifest") or {}).get("model"))}
    return describe_checkpoint(options.load(path))


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a JSON-ready description of a loaded checkpoint; ``groups`` says which blocks run on how many patch tokens."""
    recipe = checkpoint.recipe
    return {
        "kind": "checkpoint",
        "path": None if checkpoint.path is None else str(checkpoint.path),
        "family": recipe.family,
        "recipe": recipe.name,
        **describe_sizes(recipe),
        "parameters": checkpoint.parameters,
        "stored_dtype": checkpoint.stored_dtype,
        "source": checkpoint.source,
        "random": checkpoint.random,
        "sha256": checkpoint.sha256,
        "epoch": checkpoint.epoch,
        **describe_schedule(recipe),
        "args": checkpoint.args,
        "notes": list(checkpoint.notes),
    }


def describe_onnx(path: str | Path) -> dict[str, Any]:
    """Return a JSON-ready description of any ONNX file; ``manifest`` is None when evovit did not export it.

    Raises:
        ModelFileError: No such file, or not an ONNX model.
    """
    path = Path(path)
    model = load_onnx(path)
    graph = model.graph
    notes: list[str] = []
    manifest, problem = _manifest({entry.key: entry.value for entry in model.metadata_props})
    parameters, missing = _parameters(graph, path.parent)
    nodes = Counter(node.op_type for node in graph.node)
    if manifest is None:
        notes.append(problem)
    if missing:
        notes.append(f"external weights are not beside the file: {', '.join(missing[:3])}; copy them along with it")
    document = {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "exported_by_evovit": manifest is not None,
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        # Old exporters list weights among the inputs; those are not fed.
        "inputs": _values(graph.input, without={tensor.name for tensor in graph.initializer}),
        "outputs": _values(graph.output),
        "node_count": len(graph.node),
        "nodes": dict(sorted(nodes.items(), key=lambda item: (-item[1], item[0]))),
        "parameters": parameters,
        "precision": _precision(manifest, parameters, nodes),
        "manifest": manifest,
        "parity": None,
    }
    if manifest is not None:
        document["parity"], note = _parity(path, str(document["sha256"]))
        notes += note
    return {**document, **_schedule(manifest), "notes": notes}


def _file(path: Path, kind: str) -> dict[str, Any]:
    """What can be said of any file."""
    if not path.is_file():
        raise no_such_file(path, ModelFileError)
    return {"kind": kind, "path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path), "notes": []}


def _manifest(metadata: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """The manifest, or None and why there is none."""
    if KEY not in metadata:
        return None, "not exported by evovit: there is no evovit manifest in its metadata"
    try:
        manifest = read(metadata, "this file")
    except (EngineError, ModelFileError) as error:
        return None, str(error)
    if manifest is None:
        return None, "the evovit manifest in its metadata is not JSON of a schema that is known; export the model again"
    return manifest, ""


def _parity(path: Path, digest: str) -> tuple[Any, list[str]]:
    """The parity report in the JSON beside an exported file, if that JSON is about this very file."""
    beside = path.with_suffix(".json")
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
        same = document["sha256"] == digest
    except OSError:
        return None, []
    except (ValueError, KeyError, TypeError):
        return None, [f"{beside.name} beside it is not a manifest of evovit"]
    if not same:
        return None, [f"{beside.name} beside it describes another file (its SHA-256 differs)"]
    return document.get("parity"), []


def _schedule(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Schedule of an exported model, if its manifest has a readable recipe."""
    try:
        return describe_schedule(Recipe.from_dict(manifest["recipe"])) if manifest else {}
    except (RecipeError, KeyError, TypeError, AttributeError):
        return {}


def _dtype(element: int) -> str:
    import onnx

    try:
        name = str(onnx.TensorProto.DataType.Name(element)).lower()
    except ValueError:
        return f"type {element}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _values(values: Iterable[Any], without: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Name, dtype and shape of graph inputs or outputs; a dynamic size is its name."""
    result = []
    for value in values:
        if value.name in without:
            continue
        tensor = value.type.tensor_type
        shape: list[int | str] | None = None
        if tensor.HasField("shape"):
            shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
        result.append({"name": value.name, "dtype": _dtype(tensor.elem_type), "shape": shape})
    return result


def _parameters(graph: Any, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Number of weights by dtype, and names of external files that are missing."""
    counts: Counter[str] = Counter()
    missing: set[str] = set()
    for tensor in graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        counts[_dtype(tensor.data_type)] += size
        if tensor.data_location == tensor.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            if not (folder / location).is_file():
                missing.add(location)
    return dict(counts.most_common()), sorted(missing)


def _precision(manifest: dict[str, Any] | None, parameters: dict[str, int], nodes: Counter[str]) -> str:
    """What the manifest says, else the float type that most weights have."""
    if manifest and isinstance(manifest.get("precision"), str):
        return str(manifest["precision"])
    floats = {name: count for name, count in parameters.items() if name in _FLOATS}
    precision = _FLOATS[max(floats, key=lambda name: floats[name])] if floats else "unknown"
    return f"{precision}, quantized" if nodes["QuantizeLinear"] or nodes["DequantizeLinear"] else precision

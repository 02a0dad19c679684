"""The manifest: what an exported file says about itself, in its metadata and in the JSON beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from ..recipes import Recipe

if TYPE_CHECKING:
    import onnx

    from ..models.evo_deit import ModelOptions

__all__ = ["KEY", "SCHEMA", "attach", "check_schema", "is_ours", "make", "read"]

SCHEMA = 1
KEY = "evovit"


def make(
    recipe: Recipe,
    options: ModelOptions,
    *,
    batch: int | None,
    opset: int,
    outputs: tuple[str, ...],
    weights: dict[str, Any],
    variant: str = "",
) -> dict[str, Any]:
    """Return the manifest of an export.

    Args:
        recipe: As exported (structure from the tensors, keep ratios as overridden).
        options: As exported.
        batch: Static batch size, or None for a dynamic batch.
        opset: ONNX opset.
        outputs: ONNX output names.
        weights: ``source``, ``random``, ``sha256`` of the checkpoint.
        variant: ``stock`` for a model as timm ships it, ``twin`` for the folded vanilla twin, else empty.
    """
    from importlib.metadata import version

    return {
        "schema": SCHEMA,
        "kind": "onnx",
        "name": recipe.name,
        "family": recipe.family,
        "variant": variant,
        "recipe": recipe.to_dict(),
        "precision": options.precision,
        "batch": batch,
        "input": options.image_input,
        "selection": options.pattern if recipe.family.startswith("evo_") else None,
        "outputs": list(outputs),
        "opset": opset,
        "folded": options.fold and variant != "stock",
        "trim": options.trim and variant != "stock",
        "weights": weights,
        "versions": {name: version(name) for name in ("evovit-deploy", "torch", "onnx", "onnxscript", "timm")},
    }


def attach(model: onnx.ModelProto, manifest: dict[str, Any]) -> None:
    """Put the manifest into the model's metadata, in place."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(manifest)
    model.producer_name, model.producer_version = "evovit-deploy", manifest["versions"]["evovit-deploy"]
    model.doc_string = f"{manifest['name']}, {manifest['precision']}"


def is_ours(path: Path) -> bool:
    """Return whether a file is an ONNX file that evovit wrote, of any schema."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # of protobuf, whose classes differ between its versions
        return False
    return any(entry.key == KEY for entry in model.metadata_props)


def check_schema(document: Any, known: int, where: str) -> None:
    """Refuse a manifest of a later schema, which may change what the older keys mean.

    Raises:
        EngineError: ``document`` is of a schema above ``known``.
    """
    found = document.get("schema") if isinstance(document, dict) else None
    if isinstance(found, int) and found > known:
        raise EngineError(
            f"{where} was written by a newer evovit-deploy: its manifest is of schema {found}, and this version knows {known}. "
            "Upgrade evovit-deploy: git pull in its checkout, or install a newer wheel."
        )


def read(metadata: dict[str, str], where: str = "this model") -> dict[str, Any] | None:
    """Return the manifest in the metadata of the model file ``where``, or None if there is none of this package.

    Raises:
        EngineError: It was written by a newer version.
    """
    try:
        manifest = json.loads(metadata[KEY])
    except (KeyError, json.JSONDecodeError):
        return None
    check_schema(manifest, SCHEMA, where)
    return manifest if isinstance(manifest, dict) and manifest.get("schema") == SCHEMA else None

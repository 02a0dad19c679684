"""The manifest: what an exported file says about itself, in its metadata and in the JSON beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, ModelFileError, RecipeError
from ..models.families import evolves
from ..recipes import PRECISIONS, Recipe
from ..storage.json_shape import Between, misfit
from .onnx_file import load_onnx

if TYPE_CHECKING:
    import onnx

    from ..models.options import ModelOptions

__all__ = ["KEY", "SCHEMA", "attach", "check", "check_schema", "is_ours", "make", "options_of", "read", "read_file"]

SCHEMA = 1
KEY = "evovit"
_SHAPE = {
    "name": str,
    "family": str,
    "variant?": frozenset({"", "stock", "twin", "trimmed"}),
    "precision": frozenset(PRECISIONS),
    "batch": (None, Between(1, 1 << 20)),
    "input": frozenset({"float32", "uint8"}),
    "selection": (str, None),
    "outputs": [str],
    "opset?": Between(1, 1000),
    "attention?": frozenset({"plain", "operator"}),
    "folded": bool,
    "trim?": bool,
    "weights": {"source": str, "random": bool, "sha256": (str, None)},
    "versions?": {str: str},
    "islands?": [str],
    "scales?": {str: int},
}


def make(
    recipe: Recipe,
    options: ModelOptions,
    *,
    batch: int | None,
    opset: int | None,
    outputs: tuple[str, ...],
    weights: dict[str, Any],
    variant: str = "",
    attention: str = "plain",
) -> dict[str, Any]:
    """Return the manifest of an export.

    Args:
        recipe: As exported (structure from the tensors, keep ratios as overridden).
        options: As exported, with the pattern that is used.
        batch: Static batch size, or None for a dynamic batch.
        opset: ONNX opset; None for what is not ONNX.
        outputs: Output names.
        weights: ``source``, ``random``, ``sha256`` of the checkpoint.
        variant: ``stock`` for a model as timm ships it, ``twin`` for the folded vanilla twin, else empty.
        attention: ``operator`` where it is the ONNX operator Attention; ``plain``, which is not written down, else.
    """
    from importlib.metadata import version

    return {
        "schema": SCHEMA,
        "kind": "module" if opset is None else "onnx",
        "name": recipe.name,
        "family": recipe.family,
        "variant": variant,
        "recipe": recipe.to_dict(),
        "precision": options.precision,
        "batch": batch,
        "input": options.image_input,
        "selection": options.selection if evolves(recipe) else None,
        "outputs": list(outputs),
        **({} if opset is None else {"opset": opset}),
        **({} if attention == "plain" else {"attention": attention}),
        "folded": options.fold and variant != "stock",
        "trim": options.trim and variant != "stock",
        "weights": weights,
        "versions": {name: version(name) for name in ("evovit-deploy", "torch", "onnx", "onnxscript", "timm")},
    }


def options_of(manifest: dict[str, Any]) -> ModelOptions:
    """Return how the module of a manifest was built; its outputs have the names of the file."""
    from ..models.options import ModelOptions

    return ModelOptions(
        manifest["precision"],
        manifest["input"],
        manifest["selection"] or "auto",
        tuple(manifest["outputs"]),
        manifest["folded"],
        manifest.get("trim", True),
    )


def attach(model: onnx.ModelProto, manifest: dict[str, Any]) -> None:
    """Put the manifest into the model's metadata, in place."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(manifest)
    model.producer_name, model.producer_version = "evovit-deploy", manifest["versions"]["evovit-deploy"]
    model.doc_string = f"{manifest['name']}, {manifest['precision']}"


def is_ours(path: Path) -> bool:
    """Return whether a file is an ONNX file that evovit wrote, of any schema."""
    try:
        model = load_onnx(path)
    except ModelFileError:
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


def check(manifest: dict[str, Any], where: str) -> Recipe:
    """Check everything that code relies on in a manifest of this schema.

    Args:
        manifest: As parsed.
        where: The file it is in, for messages.

    Returns:
        The recipe in it.

    Raises:
        ModelFileError: The manifest is damaged.
    """
    problem = misfit(manifest, _SHAPE)
    if problem is None and "recipe" not in manifest:
        problem = "'recipe' is missing"
    if problem is None:
        try:
            recipe = Recipe.from_dict(manifest["recipe"], "recipe")
        except RecipeError as error:
            problem = str(error).removesuffix(".")
        else:
            outputs = manifest["outputs"]
            if recipe.family == manifest["family"] and outputs and len(set(outputs)) == len(outputs):
                return recipe
            problem = (
                f"family is {manifest['family']!r}, and that of the recipe is {recipe.family!r}"
                if recipe.family != manifest["family"]
                else f"outputs are {outputs}, not different names"
            )
    raise ModelFileError(
        f"{where}: its evovit manifest is damaged: {problem}. Export the model again: evovit export CKPT"
    )


def read_file(path: Path) -> dict[str, Any] | None:
    """Return the manifest in an ONNX file, as :func:`read`.

    Raises:
        ModelFileError: Not an ONNX file.
    """
    return read({entry.key: entry.value for entry in load_onnx(path).metadata_props}, str(path))


def read(metadata: dict[str, str], where: str = "this model") -> dict[str, Any] | None:
    """Return the manifest in the metadata of the model file ``where``, or None if there is none of this package.

    Raises:
        EngineError: It was written by a newer version.
        ModelFileError: It is damaged.
    """
    try:
        manifest = json.loads(metadata[KEY])
    except (KeyError, ValueError, RecursionError):
        return None
    check_schema(manifest, SCHEMA, where)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        return None
    check(manifest, where)
    return manifest

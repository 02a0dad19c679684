"""Manifests with any one value replaced or taken away: refused with an error that names the file and the key, or still sound."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy import manifest as manifests
from evovit_deploy.cli.inspect import _engine_tables, _onnx_tables
from evovit_deploy.describe import describe
from evovit_deploy.engines.trt.engine_manifest import manifest_path, read_manifest
from evovit_deploy.errors import EngineError, ModelFileError, RecipeError
from evovit_deploy.manifest.spec import ModelSpec
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Recipe, load_recipe

from .test_inspect import save_onnx
from .test_inspect_engine import make_engine

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, -1e308, 1e308, float("nan"), float("inf"), 10**30, -(10**400), "x", "", [], {}, [None], [[1]],
    {"a": 1},
)  # fmt: skip
GONE = object()
Place = tuple[Any, ...]


def paths(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place in a document; of a list the first and the last."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*at, key))
    elif isinstance(value, list) and value:
        for i in {0, len(value) - 1}:
            yield from paths(value[i], (*at, i))


def mutated(document: Any, at: Place, value: Any) -> Any:
    result = copy.deepcopy(document)
    inner = result
    for key in at[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return result


def mutations(document: Any) -> Iterator[tuple[Place, Any, Any]]:
    for at in paths(document):
        for value in (*JUNK, GONE):
            yield at, value, mutated(document, at, value)


def onnx_manifest(recipe: str) -> dict[str, Any]:
    found = load_recipe(recipe)
    document = manifests.make(
        found, ModelOptions(), batch=None, opset=20, outputs=("logits", "kept_1"),
        weights={"source": "model", "random": False, "sha256": "0" * 64},
    )  # fmt: skip
    return dict(json.loads(json.dumps(document)))


def sound(spec: ModelSpec) -> bool:
    """Whether what code computes with is what it should be."""
    classes = () if spec.scores is None and not spec.num_classes else (spec.num_classes,)
    sizes = (spec.image_size, *classes, *(() if spec.batch is None else (spec.batch,)))
    return (
        all(type(size) is int and 1 <= size <= 1 << 20 for size in sizes)
        and spec.input in ("float32", "uint8")
        and bool(spec.outputs)
        and all(isinstance(text, str) for text in (*spec.outputs, spec.name, spec.precision))
    )


def refusal(read: Callable[[], Any]) -> tuple[str, Any]:
    """The message of an error that a damaged file may raise, else empty, and what ``read`` gives."""
    try:
        return "", read()
    except (ModelFileError, EngineError) as error:
        return str(error), None


@pytest.mark.parametrize("recipe", ["evo_deit_tiny_patch16_224", "evo_levit_128s_224"])
def test_any_value_of_an_onnx_manifest(recipe: str) -> None:
    def read() -> ModelSpec | None:
        found = manifests.read({manifests.KEY: json.dumps(document)}, "model.onnx")
        return None if found is None else ModelSpec.from_manifest(found, "model.onnx")

    refused = accepted = 0
    for at, value, document in mutations(onnx_manifest(recipe)):
        message, spec = refusal(read)
        if message:
            refused += 1
            assert "model.onnx" in message, (at, value)
            assert len(message) < 600, (at, value)
        else:
            accepted += 1
            assert spec is None or sound(spec), (at, value)
            assert spec is None or Recipe.from_dict(document["recipe"]).to_dict(), (at, value)
    assert refused > accepted > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": "x"}, "recipe must be a table, not str"),
        ({"recipe": None}, "recipe must be a table"),
        ({"batch": 1.5}, r"batch is 1\.5"),
        ({"batch": 0}, "batch is 0"),
        ({"outputs": []}, r"outputs are \[\]"),
        ({"outputs": ["logits", "logits"]}, "not different names"),
        ({"input": "float16"}, "input is 'float16', not one of float32, uint8"),
        ({"family": "evo_levit"}, "family is 'evo_levit', and that of the recipe is 'evo_deit'"),
        ({"weights": "x"}, "weights is 'x', not an object"),
        (("recipe", "tolerances", -1), "tolerances must be a table"),
        (
            ("recipe", "tolerances", {"fp32": {"max_abs": -1, "min_cosine": 1, "min_top1": 1, "min_jaccard": 1}}),
            "max_abs is -1",
        ),
        (("recipe", "structure", "image_size", 10**30), "structure.image_size is 1000000000"),
        (("recipe", "structure", "mlp_ratio", 1e308), r"structure.mlp_ratio is 1e\+308"),
        (("recipe", "structure", "depth", 10**5), "structure.depth is 100000; it must be 16384 at most"),
        (("recipe", "transform", "resize_ratio", 1e308), "transform.resize_ratio"),
        (("recipe", "name", 3), "name is 3"),
    ],
)
def test_what_is_wrong_is_named(change: Any, words: str) -> None:
    document = onnx_manifest("evo_deit_tiny_patch16_224")
    document = {**document, **change} if isinstance(change, dict) else mutated(document, change[:-1], change[-1])
    with pytest.raises(
        ModelFileError, match=rf"model\.onnx: its evovit manifest is damaged: .*{words}.*Export the model again"
    ):
        manifests.read({manifests.KEY: json.dumps(document)}, "model.onnx")


@pytest.mark.parametrize("size", [1e308, 10**30, -1, "16", None, [1], float("nan")])
@pytest.mark.parametrize("name", ["evo_deit_tiny_patch16_224", "evo_levit_128s_224"])
def test_sizes_of_a_recipe_have_bounds(name: str, size: Any) -> None:
    document = load_recipe(name).to_dict()
    for key in document["structure"]:
        changed = {**document, "structure": {**document["structure"], key: size}}
        with pytest.raises(RecipeError, match="structure" if size == [1] else key):
            Recipe.from_dict(changed)


def test_inspect_shows_what_is_left_of_a_damaged_onnx_file(tmp_path: Path) -> None:
    """Every key of the top, and of the recipe's: deeper ones are read by the same reader."""
    for at, value, changed in mutations(onnx_manifest("evo_deit_tiny_patch16_224")):
        if len(at) > 2 or value in (0, 1.5):
            continue
        path = save_onnx(tmp_path / "model.onnx", changed)
        message, found = refusal(lambda path=path: describe(path))
        if not message:
            assert _onnx_tables(found), (at, value)
            assert found["manifest"] is not None or found["notes"], (at, value)


def test_any_value_of_an_engines_manifest(tmp_path: Path) -> None:
    path, document = make_engine(tmp_path)
    document["model"] = onnx_manifest("evo_deit_tiny_patch16_224")
    refused = 0
    for at, value, changed in mutations(document):
        if at[0] == "model" and len(at) > 2:
            continue  # by the reader of ONNX manifests
        manifest_path(path).write_text(json.dumps(changed))
        message, tables = refusal(lambda: read_manifest(path) and _engine_tables(describe(path)))
        refused += bool(message)
        assert tables or "model.engine" in message, (at, value)
        assert len(message) < 900, (at, value)
    assert refused > 100


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "\xff", "", "3", '"x"', "null", '{"schema": 1, "kind": "engine", "plan": NaN}']
)
def test_text_that_is_no_manifest(tmp_path: Path, text: str) -> None:
    path, _ = make_engine(tmp_path)
    manifest_path(path).write_text(text, encoding="latin-1")
    with pytest.raises(ModelFileError, match=r"model\.engine\.json"):
        read_manifest(path)
    if "schema" not in text:
        assert manifests.read({manifests.KEY: text}) is None

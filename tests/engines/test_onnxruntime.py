"""ONNX Runtime, with models of other tools and with manifests of other graphs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from evovit_deploy import Engine
from evovit_deploy.engines import OrtEngine
from evovit_deploy.errors import EngineError, ModelFileError
from tests.engines.foreign_onnx import CLASSES, SIZE, make_onnx, random_images


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[OrtEngine]:
    engine = OrtEngine(make_onnx(tmp_path / "foreign.onnx"), provider="cpu")
    yield engine
    engine.close()


def test_foreign_model_is_accepted(foreign: OrtEngine) -> None:
    spec = foreign.spec
    assert (spec.name, spec.image_size, spec.input, spec.num_classes) == ("foreign", SIZE, "float32", CLASSES)
    assert (spec.outputs, spec.batch, spec.transform, spec.manifest) == (("scores",), None, None, None)
    images = random_images(3)
    weight = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    np.testing.assert_allclose(foreign(images)["scores"], images.mean((2, 3)) @ weight, atol=1e-6)


def test_foreign_uint8_and_static_batch(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", [2, SIZE, SIZE, 3], TensorProto.UINT8)
    with OrtEngine(path, provider="cpu") as engine:
        assert (engine.spec.input, engine.spec.batch) == ("uint8", 2)
        images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
        together = engine(images)["scores"]
        assert together.shape == (5, CLASSES)
        np.testing.assert_allclose(together, np.concatenate([engine(images[i : i + 1])["scores"] for i in range(5)]))


def test_only_outputs_with_a_row_an_image_are_given(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", [2, 3, SIZE, SIZE], extra_outputs=True)
    with OrtEngine(path, provider="cpu") as engine:
        result = engine(random_images(3))  # padded: a scalar could not be cut
        assert {name: value.shape for name, value in result.items()} == {"scores": (3, CLASSES), "features": (3, 3)}


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ["n", 1, SIZE, SIZE]},
        {"shape": ["n", 3, SIZE, SIZE + 1]},
        {"shape": ["n", 3, "h", "h"]},
        {"kind": TensorProto.DOUBLE},
        {"extra_input": True},
    ],
)
def test_foreign_input_that_is_no_image_batch_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = make_onnx(tmp_path / "x.onnx", output_shape=["n", CLASSES], **options)
    with pytest.raises(ModelFileError, match=r"x\.onnx .*not one image batch.*evovit export"):
        Engine.open(path, provider="cpu")


def test_class_count_is_found_by_shape_inference(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", output_shape=["n", "classes"])
    with OrtEngine(path, provider="cpu") as engine:
        assert engine.spec.num_classes == CLASSES


def test_model_without_an_input_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor("v", TensorProto.FLOAT, [1, 2], [0.0, 1.0])
    node = helper.make_node("Constant", [], ["scores"], value=value)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ModelFileError, match="has no input"):
        Engine.open(tmp_path / "x.onnx", provider="cpu")


@pytest.mark.parametrize(
    "manifest", [{"schema": 1}, {"schema": 1, "recipe": {"surprise": 1}}, {"schema": 1, "recipe": 3}]
)
def test_damaged_manifest_is_a_model_file_error(tmp_path: Path, manifest: dict[str, Any]) -> None:
    path = make_onnx(tmp_path / "x.onnx", metadata={"evovit": json.dumps(manifest)})
    with pytest.raises(ModelFileError, match=r"x\.onnx: its evovit manifest"):
        Engine.open(path, provider="cpu")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            {"outputs": ["embedding", "sources_1"]},
            "names the output sources_1, and its graph gives embedding, patch_tokens",
        ),
        (
            {"input": "float32"},
            "tensor\\(float\\) \\[3, 48, 48\\] an image, and its graph takes tensor\\(uint8\\) \\[48, 48, 3\\]",
        ),
    ],
)
def test_a_manifest_of_another_graph_is_refused(
    features_model: Path, tmp_path: Path, edit: dict[str, Any], words: str
) -> None:
    model = onnx.load(features_model)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "evovit"]
    entry.value = json.dumps({**json.loads(entry.value), **edit})
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(ModelFileError, match=words):
        Engine.open(tmp_path / "edited.onnx", provider="cpu")


def test_a_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", metadata={"evovit": json.dumps({"schema": 999})})
    with pytest.raises(EngineError, match=r"x\.onnx was written by a newer evovit-deploy.*999.*knows 1.*Upgrade") as e:
        OrtEngine(path, provider="cpu")
    assert e.value.exit_code == 4


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": "1"}', '{"schema": 0}', '{"other": 1}'])
def test_metadata_that_is_no_manifest_is_of_another_tool(tmp_path: Path, text: str) -> None:
    with OrtEngine(make_onnx(tmp_path / "x.onnx", metadata={"evovit": text}), provider="cpu") as engine:
        assert engine.spec.manifest is None


# Running


def test_closed_engine(foreign: OrtEngine) -> None:
    foreign.close()
    foreign.close()
    with pytest.raises(EngineError, match="foreign is closed"):
        foreign(random_images(1))


def test_two_threads_get_their_own_answers(foreign: OrtEngine) -> None:
    jobs = [random_images(1 + seed % 5, seed) for seed in range(60)]
    expected = [foreign(images)["scores"] for images in jobs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda images: foreign(images)["scores"], jobs), expected):
            np.testing.assert_array_equal(got, want)


def test_non_contiguous_images(foreign: OrtEngine) -> None:
    images = random_images(6)
    np.testing.assert_array_equal(foreign(images[::-2])["scores"], foreign(images[::-2].copy())["scores"])

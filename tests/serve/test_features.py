"""A model without class scores in service and in a Triton repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from evovit_deploy.engines import Engine
from evovit_deploy.errors import InputError
from evovit_deploy.packages.triton import package_triton

from .running import Running, running
from .test_classify import png

FEATURES = (("embedding", [64]), ("patch_tokens", [9, 64]), ("block_2", [9, 64]))
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def service(features_model: Path) -> Iterator[Running]:
    with running(lambda source, settings: Engine.open(features_model, provider="cpu", threads=1)) as found:
        yield found


@pytest.fixture(scope="module")
def expected(features_model: Path) -> dict[str, Any]:
    with Engine.open(features_model, provider="cpu", threads=1) as engine:
        return engine(IMAGES)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_both_protocols_carry_vectors_and_tokens(service: Running, expected: dict[str, Any], protocol: str) -> None:
    module: Any = triton_http if protocol == "http" else triton_grpc
    with module.InferenceServerClient(getattr(service, protocol)) as client:
        tensor = module.InferInput("images", list(IMAGES.shape), "UINT8")
        tensor.set_data_from_numpy(IMAGES)
        whole = client.infer("m", [tensor])
        only = client.infer("m", [tensor], outputs=[module.InferRequestedOutput("embedding")])
    for name, value in expected.items():
        assert whole.as_numpy(name).tobytes() == value.tobytes()
    assert only.as_numpy("embedding").tobytes() == expected["embedding"].tobytes()
    assert only.as_numpy("patch_tokens") is None


def test_plain_json(service: Running, expected: dict[str, Any]) -> None:
    data = {"name": "images", "datatype": "UINT8", "shape": [1, 48, 48, 3], "data": IMAGES[0].ravel().tolist()}
    status, answer = service.json("POST", "/v2/models/m/infer", {"inputs": [data]})
    assert status == 200
    shapes = {output["name"]: output["shape"] for output in answer["outputs"]}
    for name, shape in FEATURES:
        assert shapes[name] == [1, *shape]
    vector = next(output["data"] for output in answer["outputs"] if output["name"] == "embedding")
    np.testing.assert_allclose(vector, expected["embedding"][0], rtol=0, atol=1e-5)


def test_metadata_says_what_there_is(service: Running) -> None:
    _, told = service.json("GET", "/v2/models/m")
    assert [(o["name"], o["shape"][1:]) for o in told["outputs"] if not o["name"].startswith("kept")] == [*FEATURES]
    assert "outputs embedding, patch_tokens" in service.service.models.find("m").summary


def test_classify_says_that_there_are_no_classes(service: Running) -> None:
    status, _, body = service.call("POST", "/v1/classify", png((48, 48)), {"Content-Type": "image/png"})
    assert status == 400
    assert "gives no class scores, it gives features: embedding" in json.loads(body)["error"]
    assert "/v2/models/NAME/infer" in json.loads(body)["error"]


def test_labels_are_refused(features_model: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    refused = pytest.raises(InputError, match="names classes, and the model gives no class scores")
    with refused, running(lambda source, settings: Engine.open(features_model, provider="cpu"), labels=labels):
        pytest.fail("it serves")


def test_a_triton_repository(features_model: Path, tmp_path: Path) -> None:
    folder = package_triton(features_model, tmp_path / "repository")
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    found = [(t.name, list(t.dims)) for t in config.output if not t.name.startswith("kept")]
    assert found == [*FEATURES]
    assert {pb.DataType.Name(t.data_type) for t in config.output} == {"TYPE_FP32", "TYPE_INT64"}
    with pytest.raises(InputError, match="gives no class scores"):
        package_triton(features_model, tmp_path / "other", labels=["cat"])

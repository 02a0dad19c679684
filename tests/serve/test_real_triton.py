"""A real tritonserver loads what `evovit package triton` writes, unchanged, and gives the engine's own answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from evovit_deploy.engines import Engine
from evovit_deploy.errors import OutputError
from evovit_deploy.packages.triton import TritonOptions, package_triton

from .conftest import DIGITS
from .engines import PATIENCE
from .triton_server import Triton, require_triton, triton_server

pytestmark = pytest.mark.slow

CI = "--model-config-name=ci_cpu"
WAIT = 1_000_000  # microseconds that a request waits for company


def some_images(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def tensor(client: Any, batch: np.ndarray[Any, Any], name: str = "images") -> Any:
    result = client.InferInput(name, list(batch.shape), "UINT8")
    result.set_data_from_numpy(batch)
    return result


@pytest.fixture(scope="module")
def repository(digits_model: Path, sums_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model in two versions, as three that batch differently, and one of another tool with a static batch.

    A third version and another model were begun, and their packaging was killed.
    """
    require_triton()
    place = tmp_path_factory.mktemp("triton")
    labels = (DIGITS / "labels.txt").read_text().split()
    for version in (1, 2):
        package_triton(digits_model, place / "models", TritonOptions(version=version), labels=labels)
    patient = TritonOptions(max_batch=4, max_delay_us=WAIT, timeout_ms=1000 * int(PATIENCE))
    package_triton(digits_model, place / "models", replace(patient, name="shared"))
    package_triton(digits_model, place / "models", replace(patient, name="narrow", max_queue=2))
    model = onnx.load(str(sums_model))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, str(place / "static.onnx"))
    package_triton(place / "static.onnx", place / "models")
    with pytest.MonkeyPatch.context() as kill:  # what was begun stays where it was begun
        kill.setattr("tempfile.TemporaryDirectory", lambda **options: nullcontext(tempfile.mkdtemp(**options)))
        kill.setattr(Path, "rename", lambda self, target: (_ for _ in ()).throw(OSError("killed")))
        for options in (TritonOptions(version=3), TritonOptions(name="new")):
            with pytest.raises(OutputError):
                package_triton(digits_model, place / "models", options, labels=labels)
    return place / "models"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Triton]:
    with triton_server(repository, repository.parent / "server", CI) as running:
        yield running


@pytest.fixture(scope="module")
def expected(digits_model: Path) -> Engine:
    return Engine.open(digits_model, provider="cpu", threads=1)


@pytest.fixture
def grpc(server: Triton) -> Iterator[Any]:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture
def http(server: Triton) -> Iterator[Any]:
    with triton_http.InferenceServerClient(server.http, network_timeout=PATIENCE) as client:
        yield client


def test_models_are_warm_before_they_are_ready(server: Triton, grpc: Any) -> None:
    assert grpc.get_server_metadata().name == "triton"
    for name, sizes in {"digits:1": [1, 32], "digits:2": [1, 32], "shared:1": [1, 4], "static:1": []}.items():
        assert grpc.is_model_ready(*name.split(":"))
        found = [images for images, _ in server.runs(name)][: len(sizes)]
        assert sorted(found) == sizes, name


@pytest.mark.parametrize("count", [1, 3, 32])
def test_answers_are_the_engines_to_the_last_bit(http: Any, grpc: Any, expected: Engine, count: int) -> None:
    batch = some_images(count)
    wanted = expected(batch)
    assert list(wanted) == ["logits", "probabilities", "kept_1", "kept_2"]
    for library, client in ((triton_http, http), (triton_grpc, grpc)):
        for version in ("1", "2", ""):
            result = client.infer("digits", [tensor(library, batch)], model_version=version)
            for name, value in wanted.items():
                assert result.as_numpy(name).dtype == value.dtype
                assert result.as_numpy(name).tobytes() == value.tobytes()
    assert grpc.infer("digits", [tensor(triton_grpc, batch)]).get_response().model_version == "2"


def test_kept_alone_and_classes_with_their_labels(http: Any, expected: Engine) -> None:
    batch = some_images(2)
    wanted, labels = expected(batch), (DIGITS / "labels.txt").read_text().split()
    outputs = [
        triton_http.InferRequestedOutput("probabilities", class_count=3),
        triton_http.InferRequestedOutput("kept_1"),
    ]
    result = http.infer("digits", [tensor(triton_http, batch)], outputs=outputs)
    assert {output["name"] for output in result.get_response()["outputs"]} == {"probabilities", "kept_1"}
    assert np.array_equal(result.as_numpy("kept_1"), wanted["kept_1"])
    for row, probabilities in zip(result.as_numpy("probabilities"), wanted["probabilities"]):
        best = np.argsort(-probabilities)[:3]
        assert [text.decode().split(":")[1:] for text in row] == [[str(number), labels[number]] for number in best]


def test_requests_share_batches(server: Triton, grpc: Any, expected: Engine) -> None:
    batch = some_images(4)
    before = len(server.runs("shared:1"))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda image: grpc.infer("shared", [tensor(triton_grpc, image[None])]), batch))
    runs = server.runs("shared:1")[before:]
    assert sum(images for images, _ in runs) == 4
    assert max(requests for _, requests in runs) > 1
    stats = grpc.get_inference_statistics("shared").model_stats[0]
    assert stats.execution_count < stats.inference_count
    for image, answer in zip(batch, answers):
        # Which requests met is the server's choice, and batch sizes differ in the last bits (see the docs): compare the
        # answer with the engine's at each size that was run.
        sizes = {images for images, _ in runs}
        candidates = [expected(np.repeat(image[None], size, axis=0))["logits"][0] for size in sizes]
        assert any(answer.as_numpy("logits")[0].tobytes() == logits.tobytes() for logits in candidates)


def test_the_queue_is_bounded_and_a_client_may_ask_for_less_time(grpc: Any) -> None:
    def ask(timeout: int | None) -> str:
        try:
            grpc.infer("narrow", [tensor(triton_grpc, some_images(1))], timeout=timeout)
        except InferenceServerException as error:
            return str(error.message())
        return "answered"

    with ThreadPoolExecutor(3) as pool:  # they wait for a fourth that never comes
        answers = sorted(pool.map(ask, [None] * 3))
    assert "Exceeds maximum queue size" in answers[0]
    assert answers[1:] == ["answered", "answered"]
    assert ask(1) == "Request timeout expired"


@pytest.mark.parametrize(
    ("batch", "name", "reason"),
    [
        (np.zeros((1, 32, 64, 3), np.uint8), "images", r"Expected \[-1,64,64,3\], got \[1,32,64,3\]"),
        (np.zeros((33, 64, 64, 3), np.uint8), "images", "batch-size must be <= 32"),
        (np.zeros((1, 64, 64, 3), np.uint8), "image", "unexpected inference input 'image'"),
    ],
)
def test_wrong_requests(http: Any, grpc: Any, batch: np.ndarray[Any, Any], name: str, reason: str) -> None:
    for library, client in ((triton_http, http), (triton_grpc, grpc)):
        with pytest.raises(InferenceServerException, match=reason):
            client.infer("digits", [tensor(library, batch, name)])
    with pytest.raises(InferenceServerException, match="version 3 is not found"):
        grpc.infer("digits", [tensor(triton_grpc, some_images(1))], model_version="3")


def test_a_static_batch_of_another_tool(grpc: Any) -> None:
    batch = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    answer = grpc.infer("static", [tensor(triton_grpc, batch, "image")]).as_numpy("sums")
    assert np.array_equal(answer, batch.sum((1, 2)).astype(np.float32))
    with pytest.raises(InferenceServerException, match=r"Expected \[2,4,4,3\]"):
        grpc.infer("static", [tensor(triton_grpc, batch[:1], "image")])


def same_where_written(written: Any, loaded: Any) -> None:
    """Every field that was written came back as it was; Triton adds defaults."""
    [ours], [theirs] = written.instance_group, loaded.instance_group
    assert (ours.kind, ours.count) == (theirs.kind, theirs.count)
    if written.HasField("dynamic_batching"):  # without preferred sizes Triton prefers the largest
        assert loaded.dynamic_batching.preferred_batch_size == [written.max_batch_size]
        del loaded.dynamic_batching.preferred_batch_size[:]
    for field, value in written.ListFields():
        if field.name != "instance_group":
            assert getattr(loaded, field.name) == value, field.name


def test_the_configuration_is_loaded_as_written(repository: Path, grpc: Any) -> None:
    for name in ("digits", "shared", "narrow", "static"):
        written = text_format.Parse((repository / name / "configs" / "ci_cpu.pbtxt").read_text(), pb.ModelConfig())
        same_where_written(written, grpc.get_model_config(name).config)


def test_the_main_configuration_and_a_version_that_comes_later(digits_model: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    folder = package_triton(digits_model, models, TritonOptions(name="cpu", cpu=True))
    package_triton(digits_model, models, TritonOptions(name="gpu", instances=2))
    batch = some_images(1)
    with (
        triton_server(models, tmp_path / "server", "--model-control-mode=explicit", "--load-model=cpu") as server,
        triton_grpc.InferenceServerClient(server.grpc) as client,
    ):
        written = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
        same_where_written(written, client.get_model_config("cpu").config)
        # Triton reads the configuration for a GPU as far as its instances, which this server has no device for.
        with pytest.raises(InferenceServerException, match="KIND_GPU but no GPUs are available"):
            client.load_model("gpu")
        package_triton(digits_model, models, TritonOptions(name="cpu", cpu=True, version=2))
        client.load_model("cpu")
        answers = [
            client.infer("cpu", [tensor(triton_grpc, batch)], model_version=version).as_numpy("logits").tobytes()
            for version in ("1", "2")
        ]
        assert answers[0] == answers[1]
        assert [model.name for model in client.get_model_repository_index().models if model.state == "READY"] == [
            "cpu",
            "cpu",
        ]


def test_a_killed_packaging_does_not_keep_triton_from_starting(repository: Path, grpc: Any) -> None:
    left = [path for path in repository.parent.rglob(".evovit-*") if path.is_dir()]
    assert len(left) == 2
    index = [(model.name, model.version, model.state) for model in grpc.get_model_repository_index().models]
    loaded = [("digits", "1"), ("digits", "2"), ("narrow", "1"), ("shared", "1"), ("static", "1")]
    assert sorted(index) == [(*model, "READY") for model in loaded]

"""A real Ray cluster of two nodes on the loopback address. One file, so that there is one cluster at a time."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from typer.testing import CliRunner

from evovit_deploy.cli import app as cli
from evovit_deploy.cluster import predicting
from evovit_deploy.cluster.application import application
from evovit_deploy.cluster.options import RayOptions
from evovit_deploy.cluster.predicting import describe
from evovit_deploy.cluster.predicting import predict as predict_files
from evovit_deploy.engines import Engine
from evovit_deploy.errors import EngineError, ModelFileError
from evovit_deploy.loadtest.faults import RAY_SCENARIOS
from evovit_deploy.loadtest.ray_faults import HANGS, TwoNodes, deploy, ray_cluster, retried
from evovit_deploy.loadtest.stand_in import NAME, numbered

from .conftest import DIGITS
from .engines import PATIENCE
from .on_ray import Deadly, slow
from .test_docs import definitions
from .test_http import document, some_images, tensor

pytestmark = pytest.mark.slow


class Ray:
    """The cluster, and the address of its HTTP."""

    def __init__(self, pair: TwoNodes) -> None:
        self.pair, self.host = pair, pair.http

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def ray_() -> Iterator[Ray]:
    with ray_cluster() as pair:
        yield Ray(pair)


# Offline, while one node is all there is


@pytest.fixture
def pictures(ray_: Ray, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, source in enumerate(sorted((DIGITS / "test").rglob("*.png"))[:40]):
        (folder / f"{number:02}.png").write_bytes(source.read_bytes())
    return folder


def predict(model: Path, folder: Path, *more: object) -> tuple[int, Any, str]:
    arguments = ["predict", model, folder, "--provider", "cpu", "--threads", 1, "--batch", 2, "--json", *more]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, result.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


RAY = ("--ray", "--cpus", 0.5)


def test_predict_goes_on_after_an_interruption_and_is_the_same_with_ray(
    ray_: Ray, digits_model: Path, pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "39.png").write_bytes(b"no image")
    real, kept = predicting.Parts.write, []

    def interrupted(self: Any, number: int, rows: Any) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        real(self, number, rows)
        kept.append(number)

    monkeypatch.setattr(predicting.Parts, "write", interrupted)
    code, _, errors = predict(digits_model, pictures, *RAY)
    assert code == 130
    assert "the same command resumes there" in errors
    [first, second] = sorted(cache.rglob("*.json"))
    second.write_bytes(second.read_bytes()[:-9])  # as a disk that filled up may leave it

    again: list[int] = []
    monkeypatch.setattr(
        predicting.Parts, "write", lambda self, number, rows: (real(self, number, rows), again.append(number))
    )
    code, document_, errors = predict(digits_model, pictures, *RAY)
    assert (code, document_["failures"]) == (1, 1)
    assert "not an image" in document_["results"][39]["error"]
    assert "39.png: not an image" in errors
    assert "8 of 40 images were done by an earlier run" in errors
    assert sorted(again) == sorted(set(range(5)) - {int(first.stem)})
    assert document_ == predict(digits_model, pictures)[1]
    assert not list(cache.rglob("*.json"))  # everything is done


def test_errors_of_a_worker_are_told(ray_: Ray, pictures: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    result = CliRunner().invoke(
        cli, ["predict", str(tmp_path / "x.onnx"), str(pictures), *map(str, RAY), "--provider", "cpu"]
    )
    assert isinstance(result.exception, ModelFileError)
    assert "x.onnx" in str(result.exception)


def test_a_worker_that_dies_every_time_ends_the_run(
    ray_: Ray, digits_model: Path, pictures: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "RETRIES", 1)
    job = Deadly(digits_model, 1, 8, {}, 0.5)
    with pytest.raises(EngineError, match=r"failed over .*00.png to .*31.png; what is done is kept"):
        predict_files(job, describe(job), sorted(pictures.iterdir()), replicas=1)


def test_more_than_the_cluster_has_is_refused(ray_: Ray, digits_model: Path, pictures: Path, cache: Path) -> None:
    for option, reason in (("--cpus", "asks for 99 CPU"), ("--gpus", "asks for 99 GPU")):
        result = CliRunner().invoke(cli, ["predict", str(digits_model), str(pictures), "--ray", option, "99"])
        assert isinstance(result.exception, EngineError)
        assert reason in str(result.exception)


@pytest.fixture
def few_blocks(ray_: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data makes two tasks of what is read, not one for each file."""
    from ray.data import DataContext

    for name in ("read_op_min_num_blocks", "min_parallelism"):
        monkeypatch.setattr(DataContext.get_current(), name, 2)


def test_a_stage_of_ray_data(few_blocks: None, digits_model: Path, pictures: Path) -> None:
    import ray.data

    from evovit_deploy.cluster import score

    (pictures / "00.png").write_bytes(b"no image")
    paths = sorted(map(str, pictures.iterdir()))[:12]
    common: dict[str, Any] = {"provider": "cpu", "num_cpus": 0.5, "batch_size": 4, "top_k": 2}
    by_path = {
        row["path"]: row
        for row in score(ray.data.from_items([{"path": path} for path in paths]), digits_model, **common).take_all()
    }
    assert set(by_path) == set(paths)
    assert "not an image" in by_path[paths[0]]["error"]
    assert by_path[paths[0]]["classes"].tolist() == [-1, -1]
    _, alone, _ = predict(digits_model, pictures)
    for entry in alone["results"][1:12]:
        row = by_path[entry["path"]]
        assert row["error"] == ""
        assert row["classes"].tolist() == [top["class"] for top in entry["top"]][:2]
        np.testing.assert_allclose(row["probabilities"], [top["probability"] for top in entry["top"]][:2], atol=1e-5)

    pixels = [{"id": path, "image": np.asarray(Image.open(path).convert("RGB"))} for path in paths[1:3]]
    for row in score(ray.data.from_items(pixels), digits_model, column="image", **common).take_all():
        assert set(row) == {"id", "classes", "probabilities", "error"}
        assert row["probabilities"].tolist() == pytest.approx(by_path[row["id"]]["probabilities"].tolist(), abs=1e-5)


def test_the_stage_of_the_documentation(few_blocks: None, digits_model: Path, pictures: Path, tmp_path: Path) -> None:
    """Encoded images in a column of bytes."""
    from pyarrow import parquet

    classify = definitions("ray data")["classify"]
    (pictures / "00.png").write_bytes(b"no image")
    classify(str(pictures), str(tmp_path / "scored"), str(digits_model), replicas=1)
    rows = {Path(row["path"]).name: row for row in parquet.read_table(tmp_path / "scored").to_pylist()}
    assert set(rows) == {path.name for path in pictures.iterdir()}
    assert {frozenset(row) for row in rows.values()} == {frozenset({"path", "classes", "probabilities", "error"})}
    assert "not an image" in rows["00.png"]["error"]
    _, alone, _ = predict(digits_model, pictures)
    for entry in alone["results"][1:]:
        row = rows[Path(entry["path"]).name]
        assert (list(row["classes"]), row["error"]) == ([top["class"] for top in entry["top"]][:3], "")


# Online


def run(name: str, options: RayOptions, **more: Any) -> None:
    from ray import serve

    serve.run(application(options, **more), name=name, route_prefix=f"/{name}")


@pytest.fixture(scope="module")
def digits_app(ray_: Ray, digits_model: Path) -> Iterator[Ray]:
    from ray import serve

    labels = str(DIGITS / "labels.txt")
    options = RayOptions(models=(f"digits={digits_model}",), labels=labels, provider="cpu", threads=1, num_cpus=0.1)
    run("digits", options, token="secret")
    yield ray_
    serve.delete("digits")


TOKEN = {"Authorization": "Bearer secret"}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_tritonclient_agrees_with_the_engine_to_the_last_bit(
    digits_app: Ray, digits_model: Path, binary: bool, coding: str | None
) -> None:
    batch = some_images(3)
    with Engine.open(digits_model, provider="cpu", threads=1) as engine:
        expected = engine(batch)
    with triton.InferenceServerClient(f"{digits_app.host}/digits") as client:
        result = client.infer(
            "digits",
            [tensor(batch, binary)],
            outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in expected],
            request_id="r1",
            headers=dict(TOKEN),  # the client writes into it
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    for name, value in expected.items():
        assert result.as_numpy(name).dtype == value.dtype
        assert result.as_numpy(name).tobytes() == value.tobytes()
    assert result.get_response()["id"] == "r1"


def test_the_routes_of_the_service_below_a_prefix(digits_app: Ray) -> None:
    with triton.InferenceServerClient(f"{digits_app.host}/digits") as client:
        assert client.is_server_live()  # no token for these
        assert client.is_server_ready()
        assert client.is_model_ready("digits", headers=dict(TOKEN))
        metadata = client.get_model_metadata("digits", headers=dict(TOKEN))
        assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 64, 64, 3]}]
        assert client.get_model_config("digits", headers=dict(TOKEN))["max_batch_size"] == 32
        assert client.get_model_repository_index(headers=dict(TOKEN))[0]["state"] == "READY"
    picture = (DIGITS / "test" / "7" / "0081.png").read_bytes()
    status, _, body = digits_app.call("POST", "/digits/v1/classify?top_k=1", picture, **TOKEN)
    assert (status, json.loads(body)["top"][0]["label"]) == (200, "7")
    status, _, body = digits_app.call("GET", "/digits/metrics", **TOKEN)
    assert (status, b"evovit_images_total" in body) == (200, True)
    for path, headers, wanted in (
        ("/digits/v2/models/digits", {}, 401),
        ("/digits/v2/models/other", TOKEN, 404),
        ("/digits/nothing", TOKEN, 404),
    ):
        status, _, body = digits_app.call("GET", path, **headers)
        assert status == wanted
        assert json.loads(body)["error"]
    assert digits_app.call("POST", "/digits/v2/models/digits/infer", b"{", **TOKEN)[0] == 400
    assert digits_app.call("POST", "/digits/v2/repository/models/digits/unload", b"{}", **TOKEN)[0] == 403


def test_beyond_the_queue_requests_get_503(ray_: Ray) -> None:
    from ray import serve

    run(
        "slow", RayOptions(models=("m=x",), num_cpus=0.1, max_batch=1, max_ongoing_requests=1, max_queue=2), opener=slow
    )

    def ask(value: int) -> tuple[int, dict[str, str], bytes]:
        return ray_.call("POST", "/slow/v2/models/m/infer", json.dumps(document(value)))

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    serve.delete("slow")
    counts = {status: sum(found == status for found, _, _ in answers) for status in (200, 503)}
    assert counts[200] + counts[503] == 24  # answered or refused, none lost
    assert counts[200] >= 2
    assert counts[503] >= 1
    for value, (status, headers, body) in enumerate(answers):
        if status == 200:
            assert json.loads(body)["outputs"][0]["data"][0] == value
        else:
            assert headers["retry-after"] == "1"


@pytest.fixture(scope="module")
def pair(ray_: Ray) -> TwoNodes:
    from ray import serve

    serve.delete("digits")
    deploy(ray_.pair)
    return ray_.pair


@pytest.mark.parametrize("name", RAY_SCENARIOS)
def test_killed_under_load_nothing_is_lost(pair: TwoNodes, name: str) -> None:
    counts = asyncio.run(RAY_SCENARIOS[name].run(pair))  # type: ignore[arg-type]
    assert RAY_SCENARIOS[name].broken(counts) == [], counts
    assert counts["answered"] == counts["requests"] >= 300


def test_replicas_whose_engine_hangs_are_replaced(ray_: Ray, pair: TwoNodes) -> None:
    before = pair.replicas()
    assert len(before) == 2
    batch = numbered(HANGS, 8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}
    until = time.monotonic() + 2 * PATIENCE
    while before & pair.replicas() and time.monotonic() < until:
        # Four runs hang in each replica before it is replaced; one that is full refuses at once.
        status, _, _ = ray_.call("POST", f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}))
        assert status in (500, 503)
        time.sleep(0.02)
    assert asyncio.run(pair.complete(lambda now: not now & before))
    counts = asyncio.run(retried(pair, 20))
    assert counts["answered"] == counts["requests"] >= 20

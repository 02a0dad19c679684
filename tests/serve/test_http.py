"""The HTTP service as clients meet it: real sockets, the real tritonclient."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.errors import EngineError, ModelFileError
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

from .engines import PATIENCE, NumberEngine, images, numbers
from .running import Running, always, running

OUTPUTS = ("logits", "probabilities", "kept_1", "kept_2")


def some_images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def tensor(batch: np.ndarray[Any, Any], binary: bool = True, module: Any = triton) -> Any:
    result = module.InferInput("images", list(batch.shape), "UINT8")
    result.set_data_from_numpy(batch, binary_data=binary)
    return result


def document(*values: int) -> dict[str, Any]:
    """A JSON request with images that carry numbers."""
    batch = images(*values)
    data = {"name": "images", "datatype": "UINT8", "shape": list(batch.shape), "data": batch.ravel().tolist()}
    return {"inputs": [data]}


@pytest.fixture(scope="module")
def expected(digits_model: Path) -> Callable[[np.ndarray[Any, Any]], dict[str, Any]]:
    return Engine.open(digits_model, provider="cpu", threads=1)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_every_mode_agrees_with_the_engine_to_the_last_bit(
    digits: Running, expected: Any, binary_in: bool, binary_out: bool, coding: str | None
) -> None:
    batch = some_images(3)
    with triton.InferenceServerClient(digits.http) as client:
        result = client.infer(
            "digits",
            [tensor(batch, binary_in)],
            outputs=[triton.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS],
            request_id="r1",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
    for name, value in expected(batch).items():
        found = result.as_numpy(name)
        assert found.dtype == value.dtype
        assert found.tobytes() == value.tobytes()
    assert result.get_response()["id"] == "r1"


def test_async_clients_agree(digits: Running, expected: Any) -> None:
    batches = [some_images(1 + seed % 3, seed) for seed in range(8)]

    async def main() -> list[Any]:
        async with triton_aio.InferenceServerClient(digits.http) as client:
            return await asyncio.gather(*(client.infer("digits", [tensor(batch)]) for batch in batches))

    with triton.InferenceServerClient(digits.http, concurrency=4) as client:
        later = [client.async_infer("digits", [tensor(batch)]) for batch in batches]
        results = [request.get_result() for request in later]
    for batch, *answers in zip(batches, asyncio.run(main()), results):
        for answer in answers:  # they shared batches, so the last bits are those of other batch sizes
            np.testing.assert_allclose(answer.as_numpy("logits"), expected(batch)["logits"], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(answer.as_numpy("kept_1"), expected(batch)["kept_1"])


def test_metadata_config_statistics_and_index(digits: Running) -> None:
    with triton.InferenceServerClient(digits.http) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("digits")
        assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 64, 64, 3]}]
        assert [output["name"] for output in metadata["outputs"]] == list(OUTPUTS)
        assert metadata["outputs"][2] == {"name": "kept_1", "datatype": "INT64", "shape": [-1, 32]}
        assert metadata["versions"] == ["1"]
        assert client.get_model_config("digits")["max_batch_size"] == 32
        before = client.get_inference_statistics("digits")["model_stats"][0]
        client.infer("digits", [tensor(some_images(2))])
        after = client.get_inference_statistics("digits")["model_stats"][0]
        assert after["inference_count"] - before["inference_count"] == 2
        assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
        index = [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
        assert client.get_model_repository_index() == index


def test_versions(digits_model: Path) -> None:
    def opener(source: ModelSource, settings: ServiceSettings) -> Engine:
        return NumberEngine(add=100 * int(source.version))

    with running(opener, "m:1", "m:12", "m:3") as service:
        for version, add in (("", 1200), ("1", 100), ("3", 300), ("12", 1200)):
            with triton.InferenceServerClient(service.http) as client:
                result = client.infer("m", [tensor(images(5))], model_version=version)
                assert result.as_numpy("logits")[0, 0] == 5 + add
        assert service.json("GET", "/v2/models/m")[1]["versions"] == ["1", "3", "12"]
        status, answer = service.json("GET", "/v2/models/m/versions/2")
        assert (status, answer["error"]) == (404, "model m has no version '2'; it has 1, 12, 3.")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("GET", "/v2/models/x", None, {}, 404, "no model called 'x'; there is m"),
        ("GET", "/nowhere", None, {}, 404, "Not Found"),
        ("GET", "/v2/models/m/infer", None, {}, 405, "Method Not Allowed"),
        ("POST", "/v2/models/m/infer", b"", {}, 400, "not JSON"),
        ("POST", "/v2/models/m/infer", b"{}", {"Content-Encoding": "br"}, 415, "gzip, deflate or none"),
        ("POST", "/v2/models/m/infer", b"{}", {"Content-Encoding": "gzip"}, 400, "not what gzip makes"),
        (
            "POST",
            "/v2/models/m/infer",
            gzip.compress(b"{}", mtime=0)[:-3],
            {"Content-Encoding": "gzip"},
            400,
            "cut off",
        ),
        (
            "POST",
            "/v2/models/m/infer",
            gzip.compress(bytes(2 << 20), mtime=0),
            {"Content-Encoding": "gzip"},
            413,
            "larger than",
        ),
        ("POST", "/v2/models/m/infer", bytes(2 << 20), {}, 413, "larger than 163840 bytes"),  # 256 images of 48 values
        ("POST", "/v1/classify", bytes(2 << 20), {}, 413, "larger than 1048576 bytes"),
        ("POST", "/v2/repository/index", b"[", {}, 400, "JSON object"),
        ("POST", "/v2/repository/models/x/load", b"{}", {}, 404, "no model"),
        ("POST", "/v2/repository/models/m/load", b'{"parameters": {"config": "x"}}', {}, 400, "parameters"),
        ("POST", "/v1/classify?top_k=0", b"x", {}, 400, "top_k"),
        ("POST", "/v1/classify?model=x", b"x", {}, 404, "no model"),
        ("POST", "/v1/classify", b"x", {"Content-Type": "text/plain"}, 415, "content type"),
    ],
)
def test_refusals_say_why(
    method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, reason: str
) -> None:
    with running(always(NumberEngine()), control=True, max_request_mib=1) as service:
        found, _, answer = service.call(method, path, body, headers)
        assert found == status
        assert reason in json.loads(answer)["error"]


def test_a_full_queue_gives_503_and_retry_after() -> None:
    engine = NumberEngine()
    with running(always(engine), max_queue=2) as service, ThreadPoolExecutor(3) as pool:
        for _ in range(2):  # the runs that warmed it up
            engine.wait_entered()
        engine.hold()
        first = pool.submit(service.json, "POST", "/v2/models/m/infer", document(1))
        engine.wait_entered()
        batcher = service.service.models.find("m").batcher
        others = [pool.submit(service.json, "POST", "/v2/models/m/infer", document(n)) for n in (2, 3)]
        while batcher.queued < 2:
            threading.Event().wait(0.002)
        status, headers, answer = service.call("POST", "/v2/models/m/infer", json.dumps(document(4)))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "the queue holds 2" in json.loads(answer)["error"]
        engine.release()
        for number, future in enumerate((first, *others), 1):
            status, answer = future.result(PATIENCE)
            assert status == 200
            assert answer["outputs"][0]["data"][0] == number


def test_too_many_requests_at_once() -> None:
    engine = NumberEngine()
    with running(always(engine), max_concurrent=1) as service, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            engine.wait_entered()
        engine.hold()
        first = pool.submit(service.json, "POST", "/v2/models/m/infer", document(1))
        engine.wait_entered()
        status, headers, _ = service.call("GET", "/v2")
        assert (status, headers["retry-after"]) == (503, "1")
        assert service.call("GET", "/v2/health/ready")[0] == 200  # or an orchestrator would end a busy service
        engine.release()
        assert first.result(PATIENCE)[0] == 200


def test_deadlines_of_the_service_and_of_the_client() -> None:
    engine = NumberEngine()
    with running(always(engine), timeout=0.2) as service:
        engine.hold()
        status, answer = service.json("POST", "/v2/models/m/infer", document(1))
        assert (status, answer["error"]) == (504, "not answered within 0.2 s.")
        status, answer = service.json("POST", "/v2/models/m/infer", document(2) | {"parameters": {"timeout": 50000}})
        assert (status, answer["error"]) == (504, "not answered within 0.05 s.")
        engine.release()


def test_a_client_that_goes_away_leaves_nothing_in_the_queue() -> None:
    engine = NumberEngine()
    with running(always(engine)) as service, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            engine.wait_entered()
        engine.hold()
        first = pool.submit(service.json, "POST", "/v2/models/m/infer", document(1))
        engine.wait_entered()
        batcher = service.service.models.find("m").batcher
        host, _, port = service.http.partition(":")
        body = json.dumps(document(2)).encode()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        leaving = [socket.create_connection((host, int(port))) for _ in range(20)]
        for connection in leaving:
            connection.sendall(head + body)
        while batcher.queued < 20:
            threading.Event().wait(0.002)
        for connection in leaving:
            connection.close()
        while batcher.queued:
            threading.Event().wait(0.002)
        engine.release()
        assert first.result(PATIENCE)[0] == 200
    assert engine.seen[2:] == [[1]]


def test_a_client_that_goes_away_in_the_middle_of_its_request_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evovit.access")

    def statuses() -> list[int]:
        records = [record for record in caplog.records if record.name == "evovit.access"]
        return [json.loads(record.getMessage())["status"] for record in records]

    with running(always(NumberEngine())) as service:
        host, _, port = service.http.partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        while not statuses():
            threading.Event().wait(0.002)
        assert service.call("GET", "/v2")[0] == 200
    assert statuses() == [499, 200]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_body_that_never_comes() -> None:
    with running(always(NumberEngine()), body_timeout=0.1) as service:
        host, _, port = service.http.partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_engines_that_fail_take_down_their_request_only(caplog: pytest.LogCaptureFixture) -> None:
    engine = NumberEngine(bad=(13,))
    with running(always(engine)) as service:
        status, answer = service.json("POST", "/v2/models/m/infer", document(13))
        assert (status, answer) == (500, {"error": "internal error; the log of the service says more."})
        assert "cannot take [13]" in caplog.text
        status, answer = service.json("POST", "/v2/models/m/infer", document(14))
        assert (status, answer["outputs"][0]["data"][0]) == (200, 14)


def test_an_answer_that_is_not_finite() -> None:
    engine = FakeEngine(2, 4, image_input="uint8", logits=lambda x: np.full((len(x), 2), np.nan, np.float32))
    with running(always(engine)) as service:
        assert service.json("POST", "/v2/models/m/infer", document(1))[0] == 422
        with triton.InferenceServerClient(service.http) as client:
            assert np.isnan(client.infer("m", [tensor(images(1))]).as_numpy("logits")).all()


def test_a_token_is_asked_for_everywhere_but_at_the_health_checks() -> None:
    with running(always(NumberEngine()), token="s3cret") as service:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert service.call("GET", path)[0] == 200
        for path in ("/v2", "/v2/models/m", "/metrics", "/openapi.json", "/docs", "/nowhere", "/v2/health/live/"):
            for value in (
                None,
                "s3cret",
                "Bearer s3cre",
                "Bearer s3crett",
                "Basic s3cret",
                "Bearers3cret",
                "Bearer \xff",
            ):
                status, headers, _ = service.call(
                    "GET", path, headers={} if value is None else {"Authorization": value}
                )
                assert (status, headers["www-authenticate"]) == (401, "Bearer")
        for scheme in ("Bearer", "bearer", "BEARER"):  # case does not matter there
            assert service.call("GET", "/v2", headers={"Authorization": f"{scheme} s3cret"})[0] == 200


def test_unload_and_load(fake: Running) -> None:
    with triton.InferenceServerClient(fake.http) as client:
        client.unload_model("m")
        assert not client.is_model_ready("m")
        assert client.is_server_ready()
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        status, answer = fake.json("POST", "/v2/models/m/infer", document(1))
        assert (status, answer["error"]) == (503, "model m is not loaded.")
        client.load_model("m")
        assert numbers({"logits": client.infer("m", [tensor(images(9))]).as_numpy("logits")}) == [9]


def test_control_is_refused_unless_allowed() -> None:
    with running(always(NumberEngine())) as service:
        for action in ("load", "unload"):
            status, answer = service.json("POST", f"/v2/repository/models/m/{action}", {})
            assert status == 403
            assert "--allow-control" in answer["error"]
        assert service.json("POST", "/v2/models/m/infer", document(1))[0] == 200


def test_a_reload_under_load_loses_nothing_and_a_bad_file_changes_nothing() -> None:
    opened: list[Engine] = []

    def opener(source: ModelSource, settings: ServiceSettings) -> Engine:
        if len(opened) == 4:
            opened.append(FakeEngine(3, 4, image_input="uint8"))  # another number of classes
        elif len(opened) == 5:
            raise ModelFileError("/secret/path/m.onnx: cannot be read")
        else:
            opened.append(NumberEngine(add=1000 * len(opened)))
        return opened[-1]

    with running(opener, control=True, max_queue=1000) as service, ThreadPoolExecutor(4) as pool:
        done = threading.Event()

        def caller(offset: int) -> int:
            count = 0
            while not done.is_set() or not count:
                status, answer = service.json("POST", "/v2/models/m/infer", document(offset + count % 100))
                assert status == 200
                assert answer["outputs"][0]["data"][0] % 1000 == offset + count % 100
                count += 1
            return count

        callers = [pool.submit(caller, 100 * number) for number in range(3)]
        for _ in range(3):
            assert service.json("POST", "/v2/repository/models/m/load", {})[0] == 200
        for _ in range(2):
            status, answer = service.json("POST", "/v2/repository/models/m/load", {})
            assert status == 409
            assert "it goes on with the old file" in answer["error"]
            assert "secret" not in answer["error"]
        done.set()
        assert all(future.result(PATIENCE) for future in callers)
        assert service.json("POST", "/v2/models/m/infer", document(7))[1]["outputs"][0]["data"][0] == 3007


def test_metrics_page_and_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evovit.access")
    with running(always(NumberEngine())) as service:
        service.json("POST", "/v2/models/m/infer", document(1, 2) | {"id": "abc"})
        service.json("POST", "/v2/models/m/infer", {})
        status, headers, page = service.call("GET", "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        lines = set(page.decode().splitlines())
        assert 'evovit_requests_total{model="m",protocol="http",status="200",version="1"} 1.0' in lines
        assert 'evovit_requests_total{model="m",protocol="http",status="400",version="1"} 1.0' in lines
        assert 'evovit_queue_images{model="m",version="1"} 0.0' in lines
        assert 'evovit_model_ready{model="m",version="1"} 1.0' in lines
        assert 'evovit_batch_images_count{model="m",version="1"} 3.0' not in lines  # warm-up is not counted
        assert 'evovit_images_total{model="m",version="1"} 2.0' in lines
    entries = [json.loads(record.getMessage()) for record in caplog.records if record.name == "evovit.access"]
    first = entries[0]
    assert (first["status"], first["model"], first["images"], first["id"]) == (200, "m", 2, "abc")
    assert (first["method"], first["path"]) == ("POST", "/v2/models/m/infer")
    assert entries[1]["status"] == 400


def test_readiness_comes_with_the_models_and_a_failure_to_load_ends_the_service() -> None:
    def opener(source: ModelSource, settings: ServiceSettings) -> Engine:
        raise EngineError("no such GPU")

    with pytest.raises(EngineError, match="no such GPU"), running(opener):
        pass


def test_four_times_the_capacity_every_request_is_answered_or_refused_and_none_is_crossed() -> None:
    engine = NumberEngine()
    with running(always(engine), max_batch=8, max_queue=16) as service:

        async def one(client: Any, number: int) -> str:
            try:
                result = await client.infer("m", [tensor(images(number))], request_id=str(number))
            except InferenceServerException as error:
                return "refused" if error.status() == "503" else str(error)
            same = result.get_response()["id"] == str(number) and numbers({"logits": result.as_numpy("logits")}) == [
                number
            ]
            return "answered" if same else "crossed"

        async def main() -> list[str]:
            async with triton_aio.InferenceServerClient(service.http, conn_limit=64) as client:
                return await asyncio.gather(*(one(client, number) for number in range(800)))

        found = asyncio.run(main())
        assert set(found) <= {"answered", "refused"}
        assert found.count("answered") == sum(map(len, engine.seen)) - 9  # the warm-up ran 8 + 1
        assert service.service.models.find("m").batcher.queued == 0
        assert service.json("GET", "/v2/health/ready")[0] == 200

"""`evovit serve` as a process of its own: the command, signals, TLS, exit codes."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.errors import EvoVitError
from tests import warm

from .engines import PATIENCE, NumberEngine, images
from .running import always, running
from .test_http import document, tensor

START = "import sys; from evovit_deploy.cli import main; sys.argv[0] = 'evovit'; main()"


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """The command sets up logging, which must not reach other tests of this process."""
    loggers = [logging.getLogger(name) for name in ("evovit.serve", "evovit.access")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@contextmanager
def process(*arguments: object, token: str = "") -> Iterator[tuple[warm.Piped, dict[str, str]]]:
    """The command with these arguments, ready; yields it and its addresses. tests/cli/test_terminal.py starts real ones."""
    words = ["-c", START, "serve", *map(str, arguments), "--port", "0", "--grpc-port", "0"]
    with warm.Piped(words, Path.cwd(), {**os.environ, "EVOVIT_TOKEN": token}) as command:
        try:
            addresses: dict[str, str] = {}
            while len(addresses) < 3:
                line = command.stderr.readline()
                assert line, "the service ended"
                if line.startswith("ready:"):
                    _, protocol, address = line.split()
                    addresses[protocol] = address
                elif line.startswith("model:"):
                    addresses["model"] = line
            yield command, addresses
        finally:
            command.kill()


def test_the_command_serves_and_ends_on_sigterm(sums_model: Path) -> None:
    with process(f"sums={sums_model}") as (command, addresses):
        with triton.InferenceServerClient(addresses["http"].removeprefix("http://")) as client:
            batch = np.full((2, 4, 4, 3), 7, np.uint8)
            assert client.infer("sums", [tensor(batch)]).as_numpy("sums").tolist() == [[112.0] * 3] * 2
        assert addresses["http"].startswith("http://127.0.0.1:")
        assert addresses["model"].startswith("model: sums version 1, 4 px uint8, 3 classes, on onnxruntime cpu, from ")
        command.send_signal(signal.SIGTERM)
        _, log = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [(entry["path"], entry["status"], entry["images"]) for entry in entries] == [
        ("/v2/models/sums/infer", 200, 2)
    ]


def test_a_token_from_the_environment(sums_model: Path) -> None:
    """A secret that was made from a file ends in a newline."""
    with (
        process(f"sums={sums_model}", token="secret\n") as (_, addresses),
        triton.InferenceServerClient(addresses["http"].removeprefix("http://")) as client,
    ):
        assert client.get_model_metadata("sums", headers={"Authorization": "Bearer secret"})["name"] == "sums"
        with pytest.raises(InferenceServerException, match="bearer token"):
            client.get_model_metadata("sums")


def test_sigterm_under_load_loses_nothing_that_was_accepted(sums_model: Path) -> None:
    with process(f"sums={sums_model}", "--no-access-log") as (command, addresses):
        host = addresses["http"].removeprefix("http://")
        begun = threading.Semaphore(0)

        def caller() -> list[int]:
            """Statuses until the service takes no more connections."""
            found = []
            while True:
                connection = http.client.HTTPConnection(host, timeout=PATIENCE)
                try:
                    connection.connect()
                except OSError:
                    return found
                try:
                    connection.request("POST", "/v2/models/sums/infer", json.dumps(document(1)))
                    response = connection.getresponse()
                    assert json.loads(response.read())["outputs"]
                    found.append(response.status)
                except (ConnectionError, http.client.RemoteDisconnected):
                    return found  # never accepted: it waited in the listening socket
                finally:
                    connection.close()
                    begun.release()

        with ThreadPoolExecutor(4) as pool:
            callers = [pool.submit(caller) for _ in range(4)]
            for _ in range(20):
                assert begun.acquire(timeout=PATIENCE)
            command.send_signal(signal.SIGTERM)
            statuses = [future.result(PATIENCE) for future in callers]
        assert command.wait(PATIENCE) == 0  # 1 would say that accepted requests were lost
        assert {status for found in statuses for status in found} == {200}


def test_requests_under_way_are_answered_while_the_service_stops() -> None:
    engine = NumberEngine()
    with running(always(engine)) as service, ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            engine.wait_entered()
        engine.hold()

        def over_grpc() -> Any:
            with triton_grpc.InferenceServerClient(service.grpc) as client:
                entry = triton_grpc.InferInput("images", [1, 4, 4, 3], "UINT8")
                entry.set_data_from_numpy(images(5))
                return client.infer("m", [entry]).as_numpy("logits")[0, 0]

        futures = [pool.submit(service.json, "POST", "/v2/models/m/infer", document(4)), pool.submit(over_grpc)]
        batcher = service.service.models.find("m").batcher
        engine.wait_entered()
        while not batcher.queued:
            threading.Event().wait(0.002)
        stopping = pool.submit(service.stop)
        while not service.service.stopping:
            threading.Event().wait(0.002)
        assert not service.service.ready
        engine.release()
        status, answer = futures[0].result(PATIENCE)
        assert (status, answer["outputs"][0]["data"][0]) == (200, 4)
        assert futures[1].result(PATIENCE) == 5
        assert stopping.result(PATIENCE) == 0


def test_what_hangs_is_counted_as_lost_when_the_drain_ends() -> None:
    engine = NumberEngine(hang=(9,))
    with running(always(engine), lost=1, drain=0.2) as service, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            engine.wait_entered()
        answer = pool.submit(service.call, "POST", "/v2/models/m/infer", json.dumps(document(9)))
        engine.wait_entered()
        assert service.stop() == 1
        status, _, body = answer.result(PATIENCE)
        assert (status, json.loads(body)["error"]) == (503, "closed before this request was answered.")
        engine.released.set()


def test_tls(sums_model: Path, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    with process(f"sums={sums_model}", "--tls-certificate", certificate, "--tls-key", key) as (_, addresses):
        host = addresses["http"].removeprefix("https://")
        connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=str(certificate)))
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().status == 200
        connection.close()
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with triton_grpc.InferenceServerClient(addresses["grpc"], ssl=True, creds=credentials) as client:
            assert client.is_server_ready()


def test_a_port_that_is_taken() -> None:
    with running(always(NumberEngine())) as service:
        port = int(service.http.rpartition(":")[2])
        result = CliRunner().invoke(app, ["serve", "x.onnx", "--port", str(port)])
        assert isinstance(result.exception, EvoVitError)
        assert result.exception.exit_code == 2
        assert f"cannot listen on 127.0.0.1:{port}" in str(result.exception)
        port = int(service.grpc.rpartition(":")[2])
        result = CliRunner().invoke(app, ["serve", "x.onnx", "--port", "0", "--grpc-port", str(port)])
        assert isinstance(result.exception, EvoVitError)
        assert f"cannot listen on 127.0.0.1:{port} for gRPC" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["missing.onnx"], 2, "no such file"),
        (["a=x", "a:1=y"], 2, "given twice"),
        (["x.onnx", "--tls-key", "missing.pem"], 2, "certificate and its private key"),
        (["x.onnx", "--token-file", "missing"], 2, "should hold the token"),
        (["x.onnx", "--host", "not.an.address.invalid"], 2, "cannot listen"),
        (["x.onnx", "--timeout", "0"], 2, "timeout"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, reason: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments, "--port", "0", "--grpc-port", "0"])
    assert isinstance(result.exception, EvoVitError)
    assert result.exception.exit_code == code
    assert reason in str(result.exception)

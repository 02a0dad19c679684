"""What an HTTP client cannot take: memory with a head that never ends, connections without a request, time without end."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evovit_deploy.engines import FakeEngine
from evovit_deploy.serve import http_protocol

from .engines import PATIENCE, NumberEngine, images
from .running import Running, always, running, until


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service looks at its connections often, so that what it lets go goes soon."""
    monkeypatch.setattr(http_protocol, "SWEEP", 0.02)


LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: a"


@contextlib.contextmanager
def connected(service: Running, *parts: bytes) -> Iterator[socket.socket]:
    host, _, port = service.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Everything until the service closes the connection, or an answer to :data:`LIVE`."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while not found.endswith(b'{"live":true}') and (part := connection.recv(65536)):
            found += part
    return found


def reason(found: bytes) -> str:
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    return json.loads(body)["error"]


def alive(service: Running) -> bool:
    return service.call("GET", "/v2/health/live")[0] == 200


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: ", *[b"a" * 5000] * 20],
        [b"GET /v2 HTTP/1.1\r\nHost: x\r\n", *[b"a:\r\n" * 1000] * 20],
        [b"GET /", *[b"a" * 5000] * 20],
        [b"GET /" + b"a" * 100_000],
        [b"\r\n" * 50_000],
        [LIVE + HALF + b"a" * 100_000],
    ],
    ids=["value", "many", "url", "at-once", "empty-lines", "second"],
)
def test_a_head_has_a_largest_size(parts: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evovit.access")
    with running(always(NumberEngine()), max_header_kib=16) as service, connected(service, *parts) as connection:
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                found += part
        refused = found[found.rindex(b"HTTP/1.1 ") :] if found else b""
        if refused:  # else the system told us of the end before what came with it
            assert refused.startswith(b"HTTP/1.1 431 ")
            assert "larger than 16384 bytes" in reason(refused)
        assert alive(service)
    entries = [json.loads(record.getMessage()) for record in caplog.records if record.name == "evovit.access"]
    assert [entry["status"] for entry in entries if "path" not in entry] == [431]


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"0\r\n", b"1;"], ids=["value", "many", "extension"])
def test_what_is_beside_a_body_has_a_largest_size(endless: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evovit.access")
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + endless
    more = b"a:\r\n" * 50_000 if endless == b"0\r\n" else b"a" * 200_000
    with running(always(NumberEngine())) as service, connected(service, head) as connection:
        until(lambda: service.service.capacity.held == 3)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(more)
        until(lambda: not service.service.capacity.held)
        assert alive(service)

    entries = [json.loads(record.getMessage()) for record in caplog.records if record.name == "evovit.access"]
    assert [entry["status"] for entry in entries if "path" not in entry] == [431]


def test_heads_up_to_the_limit_pass() -> None:
    with running(always(NumberEngine()), max_header_kib=16) as service:
        long = LIVE[:-2] + b"X: " + b"a" * (16384 - len(LIVE) - 5) + b"\r\n\r\n"
        assert len(long) == 16384
        with connected(service, long, long[:100], long[100:], long + LIVE) as connection:
            found = b""
            while found.count(b'{"live":true}') < 4:
                found += connection.recv(65536)
        body = json.dumps({"inputs": [], "id": "x" * 50_000})  # a body is no head
        assert service.call("POST", "/v2/models/m/infer", body)[0] == 400


@pytest.mark.parametrize("sent", [HALF, b"G", LIVE + HALF], ids=["half", "one", "second"])
def test_a_head_has_a_limit_of_time(sent: bytes) -> None:
    with running(always(NumberEngine()), header_timeout=0.1) as service, connected(service, sent) as connection:
        found = b""
        while part := connection.recv(65536):
            found += part
        refused = found[found.rindex(b"HTTP/1.1 ") :]
        assert refused.startswith(b"HTTP/1.1 408 ")
        assert "did not arrive within 0.1 s" in reason(refused)


@pytest.mark.parametrize("sent", [b"", LIVE], ids=["new", "used"])
def test_an_idle_connection_is_closed(sent: bytes) -> None:
    with running(always(NumberEngine()), idle_timeout=0.1) as service, connected(service, sent) as connection:
        if sent:
            assert b" 200 " in answer(connection)
        assert connection.recv(100) == b""


def test_connections_beyond_the_limit_take_the_place_of_those_that_wait_longest() -> None:
    engine = NumberEngine()
    with running(always(engine), max_connections=4) as service, ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # the runs that warmed it up
            engine.wait_entered()
        engine.hold()
        batch = images(7)
        tensor = {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}
        working = pool.submit(service.json, "POST", "/v2/models/m/infer", {"inputs": [tensor]})
        engine.wait_entered()
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connected(service, HALF)) for _ in range(12)]
            for connection in slow[:8]:
                found = answer(connection)
                assert not found or "too many connections" in reason(found)
            assert alive(service)
            engine.release()
            assert working.result(PATIENCE)[0] == 200


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_gets_json_and_a_line_of_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with running(always(NumberEngine())) as service, connected(service, sent) as connection:
        found = answer(connection)
        assert found.startswith(b"HTTP/1.1 400 ")
        assert "not HTTP" in reason(found)
    entries = [json.loads(record.getMessage()) for record in caplog.records if record.name == "evovit.access"]
    assert [(entry["status"], entry["client"]) for entry in entries] == [(400, "127.0.0.1")]
    assert not [record for record in caplog.records if record.name.startswith("uvicorn") and "Invalid" in record.msg]


def test_requests_in_a_row_on_one_connection_have_a_limit() -> None:
    with running(always(NumberEngine())) as service:
        with connected(service, LIVE * 10) as connection:
            found = b""
            while found.count(b'{"live":true}') < 10:
                found += connection.recv(65536)
        with connected(service, LIVE * 5000) as connection:
            found = b""
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    found += part
        assert found.count(b'{"live":true}') < 20
        assert alive(service)


def test_a_client_that_does_not_read_its_answer_is_let_go() -> None:
    engine = FakeEngine(20_000, 4, image_input="uint8")
    with running(always(engine), body_timeout=0.5) as service:
        batch = np.zeros((60, 4, 4, 3), np.uint8)
        tensor = {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with connected(service, head + body):
            capacity = service.service.capacity
            until(lambda: capacity.at_work and capacity.held > 2_000_000)  # the answer, which waits
            until(lambda: not capacity.at_work)
            assert capacity.held == 0


def test_slow_bodies_take_no_places_and_bounded_memory() -> None:
    with running(always(NumberEngine()), max_concurrent=2, max_request_mib=1, max_body_mib=2) as service:
        head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        capacity = service.service.capacity
        with contextlib.ExitStack() as stack:
            slow = []
            for _ in range(8):
                slow.append(stack.enter_context(connected(service, head + bytes(900_000))))
                until(lambda: capacity.held % 900_000 == 0 and capacity.held > 0)
                assert capacity.held <= 2 << 20
            for connection in slow[:6]:  # the oldest went
                found = answer(connection)
                assert not found or (found.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in found)
            assert service.json("POST", "/v2/models/m/infer", {"inputs": []})[0] == 400  # so it had a place and memory
            until(lambda: (capacity.at_work, len(capacity.arriving)) == (0, 2))
        until(lambda: capacity.held == 0)

"""Logs cannot stop the service, whatever their reader or a client does."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator

import pytest

from evovit_deploy.serve import logs
from evovit_deploy.serve.logs import BackgroundHandler, shown

from .engines import PATIENCE, NumberEngine, images
from .running import always, running


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pipe whose reading end is still open: (reading end, stream that writes)."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.close(reading)


def logger(handler: logging.Handler) -> logging.Logger:
    result = logging.Logger("test")
    result.addHandler(handler)
    return result


def test_lines_arrive_in_order(pipe: tuple[int, io.TextIOWrapper]) -> None:
    handler = BackgroundHandler(pipe[1])
    log = logger(handler)
    for number in range(100):
        log.info("line %d é", number)
    handler.close()
    assert os.read(pipe[0], 1 << 16).decode() == "".join(f"line {number} é\n" for number in range(100))
    text = io.StringIO()  # no file descriptor
    handler = BackgroundHandler(text)
    logger(handler).info("x" * 100_000)
    handler.close()
    assert len(text.getvalue()) == logs.MAX_LINE + 1


def test_a_reader_that_stalls_costs_lines_and_nothing_else(pipe: tuple[int, io.TextIOWrapper]) -> None:
    handler = BackgroundHandler(pipe[1], lines=10)
    log, before = logger(handler), logs.dropped()
    for _ in range(1000):
        log.info("x" * 1000)
    assert logs.dropped() - before >= 1000 - 10 - 66 - 2  # what is queued, in the pipe, and in the writer's hands
    handler.close()  # does not wait for it
    os.read(pipe[0], 1 << 20)  # lets the writing thread end: what it still has fits into the pipe


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        handler = BackgroundHandler(stream)
        log, before = logger(handler), logs.dropped()
        for _ in range(10):
            log.info("x")
        handler.close()
        assert logs.dropped() - before == 10


def test_what_clients_send_is_cut_and_stays_on_its_line(caplog: pytest.LogCaptureFixture) -> None:
    assert shown("a\nb") == '"a\\nb"'
    assert len(shown("é\n" * 10_000)) < 2000
    caplog.set_level("INFO")
    batch = images(13)
    tensor = {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}
    with running(always(NumberEngine(bad=(13,)))) as service:
        document = {"inputs": [tensor], "id": "i\n" * 20_000}
        assert service.json("POST", "/v2/models/m/infer", document)[0] == 500
        assert service.call("GET", "/" + "%0Aforged" * 1000)[0] == 404
        host, _, port = service.http.partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(b"G\nforged\n\n")
            assert connection.recv(100)
        assert b"evovit_log_lines_dropped_total " in service.call("GET", "/metrics")[2]
    found = [record.getMessage() for record in caplog.records if record.name.startswith("evovit")]
    assert all(len(line) < 1000 and "\n" not in line for line in found)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "evovit.access"]
    assert lines[0]["id"] == ("i\n" * 100) + "..."
    assert [line["status"] for line in lines] == [500, 404, 400, 200]

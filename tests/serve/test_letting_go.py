"""A request that was given up lets go of its images at once, not when the garbage collector comes by."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import json
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from evovit_deploy.serve.http import build_app
from evovit_deploy.serve.service import Service
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

from .engines import PATIENCE, NumberEngine, images
from .running import Running, always, running


class Watched(NumberEngine):
    """Keeps a weak reference to the images of every request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.given: list[weakref.ref[Any]] = []

    def check(self, images: Any) -> None:
        self.given.append(weakref.ref(images))
        super().check(images)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.freeze()  # what other tests left is not looked through for every case
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def three() -> bytes:
    """A PNG that carries the number 3 wherever it is cropped."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (3, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def over_http(service: Running, batch: np.ndarray[Any, Any], timeout_us: int, expected: int = 504) -> None:
    head = {
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": batch.shape,
                "parameters": {"binary_data_size": batch.nbytes},
            }
        ],
        "parameters": {"timeout": timeout_us},
    }
    text = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    status, _, _ = service.call("POST", "/v2/models/m/infer", text + batch.tobytes(), length)
    assert status == expected


def over_grpc(service: Running, batch: np.ndarray[Any, Any], timeout_us: int, expected: int = 504) -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[batch.tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=batch.shape)
    request.parameters["timeout"].int64_param = timeout_us
    with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        stubs.GRPCInferenceServiceStub(channel).ModelInfer(request)
    codes = {504: grpc.StatusCode.DEADLINE_EXCEEDED, 500: grpc.StatusCode.INTERNAL}
    assert error.value.code() == codes[expected]


@pytest.mark.parametrize("send", [over_http, over_grpc])
def test_a_late_request_lets_go_of_its_images(send: Callable[..., None], no_collector: None) -> None:
    engine = Watched()
    with running(always(engine), max_batch=1) as service, ThreadPoolExecutor(1) as pool:
        while engine.entered.acquire(blocking=False):  # the warm-up's
            pass
        engine.gate.clear()
        first = pool.submit(service.json, "POST", "/v2/models/m/infer", {"inputs": [as_json(images(1))]})
        assert engine.entered.acquire(timeout=PATIENCE)  # it holds the engine, so that the next one waits
        engine.given.clear()
        send(service, images(2), 20_000)
        assert held(engine) == []
        engine.gate.set()
        assert first.result(PATIENCE)[0] == 200


@pytest.mark.parametrize("send", [over_http, over_grpc])
def test_an_engine_that_fails_leaves_no_images_behind(
    send: Callable[..., None], no_collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        logging.getLogger("evovit.serve"), "disabled", True
    )  # pytest keeps what is logged, with tracebacks
    engine = Watched(bad=(3,))
    with running(always(engine)) as service:
        engine.given.clear()
        send(service, images(3), 0, 500)
        assert held(engine) == []


def numbers(count: int) -> bytes:
    """A request with more numbers than it says; many enough to be read in a thread."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 3], "data": [1] * count}
    return json.dumps({"inputs": [tensor]}).encode()


INFER, CLASSIFY = "/v2/models/m/infer", "/v1/classify"


@pytest.mark.parametrize(
    ("path", "body", "packed", "status"),
    [
        (CLASSIFY, [three()], False, 500),
        (CLASSIFY, [b"x" * 600_000] * 3, False, 413),
        (CLASSIFY, [b"no image"], False, 400),
        (INFER, [numbers(70_000)], False, 413),
        (INFER, [numbers(50_000)], False, 400),
        (INFER, [gzip.compress(numbers(50_000))], True, 400),
        (INFER, [gzip.compress(bytes(2 << 20))], True, 413),
        (INFER, [gzip.compress(bytes(2 << 10))[:-1]], True, 400),
    ],
)
def test_a_refused_body_is_in_no_circle(
    path: str, body: list[bytes], packed: bool, status: int, no_collector: None
) -> None:
    opener = always(NumberEngine(bad=(3,)))
    service = Service(ModelSource.parse_all(["m=x"]), ServiceSettings(max_request_mib=1), opener=opener)
    service.load()
    logging.disable(logging.CRITICAL)  # pytest keeps what is logged, with tracebacks
    try:
        assert asyncio.run(answered(service, path, body, packed)) == status  # what is made once is made now
        gc.collect()
        assert asyncio.run(answered(service, path, body, packed)) == status
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        frames = {each.f_code.co_filename for each in gc.garbage if isinstance(each, FrameType)}
        assert not [name for name in frames if "evovit_deploy" in name]
        assert (service.capacity.at_work, service.capacity.held) == (0, 0)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        logging.disable(logging.NOTSET)


async def answered(service: Service, path: str, parts: list[bytes], packed: bool) -> int:
    """Status of one request whose body comes in these parts, without a server around the application."""
    waiting, sent = list(parts), []

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-encoding", b"gzip")] if packed else []
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path, "root_path": "",
             "raw_path": path.encode(), "query_string": b"", "headers": headers, "client": None, "server": None}  # fmt: skip
    await build_app(service)(scope, receive, send)
    await asyncio.sleep(0.1)  # for the threads of the batcher to let go
    return sent[0]["status"]


def held(engine: Watched) -> list[Any]:
    """Images that are still there; the answer is out a moment before everything about its request is gone."""
    until = time.monotonic() + PATIENCE
    while any(each() is not None for each in engine.given) and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.given
    return [each() for each in engine.given if each() is not None]


def as_json(batch: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}

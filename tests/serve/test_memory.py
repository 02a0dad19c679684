"""A request that was given up lets go of its images at once, not when the garbage collector comes by."""

from __future__ import annotations

import gc
import json
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

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
    gc.collect()
    gc.disable()
    yield
    gc.enable()


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


def held(engine: Watched) -> list[Any]:
    """Images that are still there; the answer is out a moment before everything about its request is gone."""
    until = time.monotonic() + PATIENCE
    while any(each() is not None for each in engine.given) and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.given
    return [each() for each in engine.given if each() is not None]


def as_json(batch: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"name": "images", "datatype": "UINT8", "shape": batch.shape, "data": batch.ravel().tolist()}

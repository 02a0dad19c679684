"""The gRPC service, with the real tritonclient."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import InferenceServerException

from evovit_deploy.engines import Engine

from .engines import PATIENCE, NumberEngine, images, numbers
from .running import Running, always, running


def some_images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def tensor(batch: np.ndarray[Any, Any]) -> Any:
    result = triton.InferInput("images", list(batch.shape), "UINT8")
    result.set_data_from_numpy(batch)
    return result


def answer(result: Any) -> list[int]:
    return numbers({"logits": result.as_numpy("logits")})


@pytest.fixture(scope="module")
def expected(digits_model: Path) -> Engine:
    return Engine.open(digits_model, provider="cpu", threads=1)


@pytest.fixture
def stub(fake: Running) -> Iterator[Any]:
    with grpc.insecure_channel(fake.grpc) as channel:
        yield stubs.GRPCInferenceServiceStub(channel)


def test_sync_async_and_futures_agree_with_the_engine_to_the_last_bit(digits: Running, expected: Engine) -> None:
    batch = some_images(3)

    async def main() -> Any:
        async with triton_aio.InferenceServerClient(digits.grpc) as client:
            return await client.infer("digits", [tensor(batch)], request_id="r")

    results = [asyncio.run(main())]
    with triton.InferenceServerClient(digits.grpc) as client:
        results.append(client.infer("digits", [tensor(batch)], compression_algorithm="gzip", request_id="r"))
        done: queue.Queue[Any] = queue.Queue()
        client.async_infer(
            "digits", [tensor(batch)], callback=lambda result, error: done.put((result, error)), request_id="r"
        )
        result, error = done.get(timeout=PATIENCE)
        assert error is None
        results.append(result)
        only = client.infer("digits", [tensor(batch)], outputs=[triton.InferRequestedOutput("kept_1")])
        assert [output.name for output in only.get_response().outputs] == ["kept_1"]
    for result in results:
        assert result.get_response().id == "r"
        for name, value in expected(batch).items():
            assert result.as_numpy(name).dtype == value.dtype
            assert result.as_numpy(name).tobytes() == value.tobytes()


def test_streams_answer_in_order_and_an_error_ends_its_request_only(fake: Running) -> None:
    done: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(fake.grpc) as client:
        client.start_stream(callback=lambda result, error: done.put((result, error)))
        for number in range(60):
            client.async_stream_infer("m" if number % 7 else "x", [tensor(images(number))], request_id=str(number))
        for number in range(60):
            result, error = done.get(timeout=PATIENCE)
            if number % 7:
                assert answer(result) == [number]
                assert result.get_response().id == str(number)
            else:
                assert "no model called 'x'" in str(error)
        client.stop_stream()


def test_async_stream(fake: Running) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            yield {"model_name": "m", "inputs": [tensor(images(number))]}

    async def main() -> list[int]:
        found = []
        async with triton_aio.InferenceServerClient(fake.grpc) as client:
            async for result, error in client.stream_infer(requests()):
                assert error is None
                found += answer(result)
        return found

    assert asyncio.run(main()) == list(range(10))


def test_everything_else_the_client_asks(fake: Running) -> None:
    with triton.InferenceServerClient(fake.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        assert client.get_server_metadata().name == "evovit"
        metadata = client.get_model_metadata("m")
        assert (metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("UINT8", [-1, 4, 4, 3])
        config = client.get_model_config("m").config
        assert (config.name, list(config.input[0].dims), config.max_batch_size) == ("m", [4, 4, 3], 32)
        client.infer("m", [tensor(images(1, 2))])
        statistics = client.get_inference_statistics("m").model_stats[0]
        assert (statistics.inference_count, statistics.batch_stats[0].batch_size) == (2, 2)
        assert [model.state for model in client.get_model_repository_index().models] == ["READY"]
        client.load_model("m")
        client.unload_model("m")
        assert not client.is_model_ready("m")
        with pytest.raises(InferenceServerException, match="not loaded") as caught:
            client.infer("m", [tensor(images(1))])
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        with pytest.raises(InferenceServerException) as caught:
            client.get_cuda_shared_memory_status()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_values_in_the_message_instead_of_raw_bytes(stub: Any) -> None:
    request = pb.ModelInferRequest(model_name="m")
    entry = request.inputs.add(name="images", datatype="UINT8", shape=[1, 4, 4, 3])
    entry.contents.uint_contents.extend(images(7).ravel().tolist())
    response = stub.ModelInfer(request)
    assert np.frombuffer(response.raw_output_contents[0], np.float32)[0] == 7


def test_deadlines() -> None:
    engine = NumberEngine()
    with running(always(engine), timeout=0.2) as service, triton.InferenceServerClient(service.grpc) as client:
        engine.hold()
        for options in ({}, {"timeout": 50000}, {"client_timeout": 0.05}):
            with pytest.raises(InferenceServerException) as caught:
                client.infer("m", [tensor(images(1))], **options)
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        engine.release()


def test_a_token() -> None:
    with running(always(NumberEngine()), token="s3cret") as service:
        with triton.InferenceServerClient(service.grpc) as client:
            assert client.is_server_ready()
            for headers in (None, {"authorization": "Bearer wrong"}):
                for call in (client.get_server_metadata, client.get_model_repository_index):
                    with pytest.raises(InferenceServerException) as caught:
                        call(headers=headers)
                    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
            right = {"authorization": "Bearer s3cret"}
            assert answer(client.infer("m", [tensor(images(3))], headers=right)) == [3]
        with grpc.insecure_channel(service.grpc) as channel:
            stream = stubs.GRPCInferenceServiceStub(channel).ModelStreamInfer(
                iter([pb.ModelInferRequest(model_name="m")])
            )
            with pytest.raises(grpc.RpcError) as refused:
                next(stream)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


PARAMETER = st.one_of(
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, string_param=st.text(max_size=4)),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.just(pb.InferParameter()),
)
PARAMETERS = st.dictionaries(
    st.sampled_from(("timeout", "sequence_id", "x", "shared_memory_region")), PARAMETER, max_size=2
)
INPUT = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(("images", "", "é")),
    datatype=st.sampled_from(("UINT8", "FP32", "")),
    shape=st.lists(st.sampled_from((-1, 0, 1, 3, 4, 2**62)), max_size=5) | st.just([1, 4, 4, 3]),
    parameters=PARAMETERS,
    contents=st.none() | st.builds(pb.InferTensorContents, uint_contents=st.lists(st.integers(0, 300), max_size=3)),
)
REQUEST = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(("m", "", "x/../y")),
    model_version=st.sampled_from(("", "1", "2", "-1")),
    inputs=st.lists(INPUT, max_size=2),
    outputs=st.lists(
        st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=st.sampled_from(("logits", "x"))), max_size=2
    ),
    parameters=PARAMETERS,
    raw_input_contents=st.lists(st.binary(max_size=3) | st.just(bytes(48)), max_size=2),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(message=REQUEST)
def test_any_message_is_answered_or_refused_with_a_reason(stub: Any, message: Any) -> None:
    code, details = grpc.StatusCode.OK, "answered"
    try:
        response = stub.ModelInfer(message, timeout=PATIENCE)
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
    else:
        assert len(response.raw_output_contents) == 1
    assert code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    assert details

"""What a gRPC client cannot take: memory before its token is looked at, more than it sends, and time without end."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import queue
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from evovit_deploy.errors import Overloaded
from evovit_deploy.serve import grpc_messages, grpc_service
from evovit_deploy.serve.capacity import Capacity, Visit
from evovit_deploy.serve.grpc_messages import parse
from evovit_deploy.serve.rejections import Rejected
from evovit_deploy.serve.tensors import TensorInfo
from evovit_deploy.serve.turns import MessageTurns

from .engines import PATIENCE, NumberEngine, images
from .running import Running, always, running, until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
BYTES = TensorInfo("images", "UINT8", (64, 64, 3))
FLOATS = TensorInfo("images", "FP32", (3, 64, 64))


def request(batch: np.ndarray[Any, Any], contents: bool = False, **options: Any) -> Any:
    result = pb.ModelInferRequest(model_name="m", **options)
    datatype = {"uint8": "UINT8", "float32": "FP32"}[batch.dtype.name]
    tensor = result.inputs.add(name="images", datatype=datatype, shape=batch.shape)
    if contents:
        values = tensor.contents.uint_contents if datatype == "UINT8" else tensor.contents.fp32_contents
        values.extend(batch.ravel().tolist())
    else:
        result.raw_input_contents.append(batch.tobytes())
    return result


def sub(number: int, data: bytes) -> bytes:
    return grpc_messages._tag(number, len(data)) + data


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n=st.integers(1, 3), contents=st.booleans(), floats=st.booleans(), id_=st.text())
def test_pixels_that_are_cut_out_are_those_that_were_sent(
    seed: int, n: int, contents: bool, floats: bool, id_: str
) -> None:
    rng = np.random.default_rng(seed)
    info = FLOATS if floats else BYTES
    batch = rng.integers(0, 256, (n, *info.shape)).astype("f4" if floats else "u1")
    message = parse(pb.ModelInferRequest, request(batch, contents, id=id_).SerializeToString())
    np.testing.assert_array_equal(message.images(info, 8), batch)
    assert message.request.id == id_
    assert message.request.ByteSize() < 16384
    assert len(parse(pb.ModelInferRequest, request(images(1)).SerializeToString()).request.raw_input_contents) == 1


SHAPE = pb.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=[2, 64, 64, 3]).SerializeToString()


def contents(data: bytes, number: int = 4) -> bytes:
    """A request whose one input has ``data`` as its packed contents."""
    return sub(5, SHAPE + sub(5, sub(number, data)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x2a\x00" * 500_000, "16384 bytes beside the pixels"),
        (b"\x32\x00" * 500_000, "16384 bytes beside the pixels"),
        (b"\x3a\x00" * 500_000, "16384 bytes beside the pixels"),
        (sub(5, b"\x2a\x00" * 500_000), "16384 bytes beside the pixels"),
        (sub(5, SHAPE + sub(5, b"\x42\x00" * 500_000)), "one packed field"),
        (sub(5, SHAPE + sub(5, b"\x20\x01" * 500_000)), "one packed field"),
        (sub(5, SHAPE + sub(5, b"\x22\x00" * 500_000)), "one packed field"),
        (contents(bytes(1_000_000)), r"not \[2, 64, 64, 3\] numbers within"),
        (contents(bytes(24_576), number=1), "must be uint_contents"),
        (contents(b"\xff" * 20_000), r"numbers within"),
        (contents(b"\xff" * 2 + bytes(24_576)), r"numbers within"),
        (contents(b"\x81\x02" + bytes(24_575)), r"numbers within"),
        (contents(bytes(24_576) + b"\x81"), r"numbers within"),
        (sub(7, bytes(20_000)), "this one has 0"),
        (sub(5, SHAPE) + sub(7, bytes(20_000)), "takes 24576 bytes, not 20000"),
        (sub(5, SHAPE) + sub(7, bytes(20_000)) + sub(7, b"x"), "takes one raw_input_contents"),
        (sub(7, bytes(20_000))[:-1], "cut off"),
        (bytes(20_000), "beside the pixels|not a ModelInferRequest|cut off"),
        (b"\x0f" * 20_000, "not a ModelInferRequest"),
        (b"\xff" * 20_000, "cut off"),
        (b"\x0b", "not a ModelInferRequest"),
    ],
)
def test_a_refused_message_takes_no_more_memory_than_it_has(data: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match=reason):
            parse(pb.ModelInferRequest, data).images(BYTES, 8)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def call(service: Running, data: bytes, method: str = METHOD, **options: Any) -> tuple[grpc.StatusCode, str]:
    """Status of a call with these bytes as its message."""
    with grpc.insecure_channel(service.grpc) as channel:
        try:
            channel.unary_unary(method)(data, timeout=PATIENCE, **options)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def test_a_message_is_not_read_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def spy(kind: Any, data: bytes) -> Any:
        read.append(len(data))
        return parse(kind, data)

    monkeypatch.setattr(grpc_service, "parse", spy)
    message = request(images(1)).SerializeToString()
    with running(always(NumberEngine()), token="s3cret") as service:
        for method in (METHOD, METHOD.replace("ModelInfer", "ServerMetadata")):
            for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
                code, _ = call(service, message, method, compression=compression)
                assert code == grpc.StatusCode.UNAUTHENTICATED
        assert read == []
        right = (("authorization", "Bearer s3cret"),)
        assert call(service, message, metadata=right)[0] == grpc.StatusCode.OK
        assert read == [len(message)]
        until(lambda: service.service.capacity.held == 0)


@pytest.mark.parametrize(
    "bomb", [gzip.compress(bytes(4 << 20)), zlib.compress(bytes(4 << 20)), gzip.compress(b"\x2a\x00" * 400_000)]
)
def test_what_is_compressed_has_the_limits_of_what_is_not(bomb: bytes) -> None:
    with running(always(NumberEngine()), max_request_mib=1) as service:
        code, details = call(service, bomb)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "larger than 1048576 bytes" in details or "beside the pixels" in details
        for pack in (gzip.compress, zlib.compress):
            assert call(service, pack(request(images(1)).SerializeToString()))[0] == grpc.StatusCode.OK
        until(lambda: service.service.capacity.held == 0)


def test_a_message_that_never_comes() -> None:
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(PATIENCE)
        yield from ()

    with running(always(NumberEngine()), body_timeout=0.2) as service, grpc.insecure_channel(service.grpc) as channel:
        try:
            with pytest.raises(grpc.RpcError) as caught:
                channel.stream_unary(METHOD)(nothing(), timeout=PATIENCE)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert "did not arrive within 0.2 s" in caught.value.details()
            with pytest.raises(grpc.RpcError) as caught:
                channel.stream_unary(METHOD)(iter(()))
            assert "no message" in caught.value.details()
        finally:
            never.set()


def test_what_does_not_arrive_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evovit_deploy.serve.server.GRACE", 0.2)
    with running(always(NumberEngine()), drain=1000.0, body_timeout=1000.0) as service:  # noqa: SIM117
        with grpc.insecure_channel(service.grpc) as channel:
            sent: queue.Queue[Any] = queue.Queue()
            unfinished = channel.stream_unary(METHOD).future(iter(sent.get, None))
            stream = stubs.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(sent.get, None))
            host, _, port = service.http.partition(":")
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                connection.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
                while len(service.service.capacity.arriving) < 2:
                    threading.Event().wait(0.002)
                service.stop()
                assert connection.recv(4096).startswith(b"HTTP/1.1 503 ")
            for ended in (unfinished.result, lambda: next(stream)):
                with pytest.raises(grpc.RpcError) as caught:
                    ended()
                assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            sent.put(None)
            sent.put(None)


def test_streams_have_a_limit() -> None:
    with running(always(NumberEngine()), max_streams=1) as service, grpc.insecure_channel(service.grpc) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        sent: queue.Queue[Any] = queue.Queue()
        first = stub.ModelStreamInfer(iter(sent.get, None))
        sent.put(request(images(5)))
        assert not next(first).error_message
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ModelStreamInfer(iter([request(images(5))])))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        sent.put(None)
        assert list(first) == []
        assert not next(stub.ModelStreamInfer(iter([request(images(5))]))).error_message


def test_connections_have_a_limit() -> None:
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    with running(always(NumberEngine()), max_connections=2) as service:
        host, _, port = service.grpc.rpartition(":")
        opened = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(2)]
        for connection in opened:
            connection.sendall(hello)
            assert connection.recv(100)
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as third:
            third.sendall(hello)
            with contextlib.suppress(ConnectionError):
                assert third.recv(100) == b""
        for connection in opened:
            connection.close()


def visits(count: int) -> list[Visit]:
    capacity = Capacity(10, 10)
    return [Visit(capacity) for _ in range(count)]


def test_turns_are_taken_in_order_and_given_back_whatever_happens() -> None:
    async def main() -> None:
        turns, begun = MessageTurns(2, 3, 1000.0), []
        gates = [asyncio.get_running_loop().create_future() for _ in range(6)]

        def reading(number: int, visit: Visit) -> asyncio.Task[Any]:
            async def receive() -> Any:
                begun.append(number)
                return await gates[number]

            return asyncio.ensure_future(turns.read(visit, receive))

        tasks = [reading(number, visit) for number, visit in enumerate(visits(6))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun == [0, 1]
        with pytest.raises(Overloaded, match="3 calls wait"):
            await tasks[5]
        tasks[2].cancel()
        gates[0].set_result("a")
        assert await tasks[0] == "a"
        gates[1].set_exception(OSError())
        with pytest.raises(OSError):
            await tasks[1]
        await asyncio.sleep(0)
        assert begun == [0, 1, 3, 4]
        for number in (3, 4):
            gates[number].set_result(number)
            assert await tasks[number] == number
        assert tasks[2].cancelled()

    asyncio.run(main())


def test_a_message_that_takes_long_goes_when_others_wait() -> None:
    async def main() -> None:
        turns = MessageTurns(1, 10, 0.0)
        never = asyncio.get_running_loop().create_future()
        slow, other = visits(2)

        async def now() -> str:
            return "here"

        first = asyncio.ensure_future(turns.read(slow, lambda: never))
        await asyncio.sleep(0)
        assert await turns.read(other, now) == "here"
        with pytest.raises(Overloaded, match="took long to arrive"):
            await first
        assert await turns.read(other, now) == "here"

    asyncio.run(main())

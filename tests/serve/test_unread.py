"""Answers of gRPC that their clients do not read: they are counted, they have a limit of time, and others are served."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from evovit_deploy.loadtest.http2 import unread_calls
from evovit_deploy.serve import grpc_service
from evovit_deploy.serve.hanging_up import hang_up

from .engines import PATIENCE, NumberEngine, images
from .running import Running, always, running, until


def message(id_: str = "") -> bytes:
    request = pb.ModelInferRequest(model_name="m", id=id_, raw_input_contents=[images(7).tobytes()])
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 4, 4, 3])
    return request.SerializeToString()


@contextlib.contextmanager
def unread(service: Running, data: bytes) -> Iterator[socket.socket]:
    host, _, port = service.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(data)
        yield connection


def ended(connection: socket.socket) -> bool:
    """Whether the service closes a connection; what it sends before is thrown away."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def infer(service: Running) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        stubs.GRPCInferenceServiceStub(channel).ModelInfer(pb.ModelInferRequest.FromString(message()), timeout=PATIENCE)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "ServerMetadata"])
@pytest.mark.parametrize("clients", [1, 20])
def test_a_client_that_does_not_read_is_let_go(method: str, clients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_service, "SWEEP", 0.1)
    data = b"" if method == "ServerMetadata" else message("x" * 200)
    with running(always(NumberEngine()), body_timeout=0.5, max_streams=100) as service, contextlib.ExitStack() as stack:
        capacity = service.service.capacity
        connections = [stack.enter_context(unread(service, unread_calls(method, data, 3))) for _ in range(clients)]
        until(lambda: len(capacity.leaving) == 3 * clients)
        assert capacity.held > 3 * clients * (2 * 200 if data else 1)
        assert capacity.at_work == 0
        infer(service)
        for connection in connections:
            assert ended(connection)
        until(lambda: not capacity.leaving and not capacity.held)
        infer(service)


def test_what_is_not_read_has_the_memory_of_all_requests_and_goes_when_others_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_service, "SWEEP", 1000.0)
    data = unread_calls("ModelInfer", message("x" * 15_000), 4)
    with (
        running(always(NumberEngine()), max_body_mib=1, max_request_mib=1) as service,
        contextlib.ExitStack() as stack,
    ):
        capacity = service.service.capacity
        for _ in range(12):  # 48 answers of 2 x 15 kB
            stack.enter_context(unread(service, data))
        until(lambda: len(capacity.leaving) == 34 and not capacity.at_work)
        assert capacity.held <= 1 << 20
        assert [len(capacity.unread(30.0, 2.0)) for _ in range(3)] == [0, 0, 34]
        capacity.memory *= 10  # there is room now
        assert not capacity.unread(30.0, 2.0)


def test_as_many_wait_to_be_read_as_there_are_places() -> None:
    with running(always(NumberEngine()), max_concurrent=2) as service:
        with unread(service, unread_calls("ModelInfer", message(), 2)):
            until(lambda: len(service.service.capacity.leaving) == 2)
            with pytest.raises(grpc.RpcError) as caught:
                infer(service)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "2 answers wait to be read" in caught.value.details()
        until(lambda: not service.service.capacity.leaving)  # the client is gone
        infer(service)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_only_the_named_connection_ends(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listening.listen()
        with (
            socket.create_connection(listening.getsockname()[:2]) as one,
            socket.create_connection(listening.getsockname()[:2]) as other,
        ):
            taken = [listening.accept()[0] for _ in range(2)]
            name = f"ipv6:%5B{host}%5D" if family == socket.AF_INET6 else f"ipv4:{host}"
            assert hang_up({f"{name}:1", "unix:", "nonsense"}) == 0
            assert hang_up({f"{name}:{one.getsockname()[1]}"}) == 1
            assert one.recv(1) == b""
            taken[1].sendall(b"x")
            assert other.recv(1) == b"x"
            for each in taken:
                each.close()

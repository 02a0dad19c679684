"""TLS handshakes that stop half-way: a limited number, for a limited time, and nobody else is kept waiting."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from pathlib import Path

import pytest

from evovit_deploy.serve.memory import handshakes

from .engines import PATIENCE, NumberEngine
from .running import Running, always, running


def opened(service: Running, stack: contextlib.ExitStack) -> socket.socket:
    host, _, port = service.http.partition(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))


def ready(service: Running, certificate: Path) -> bool:
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection(service.http, context=context, timeout=PATIENCE)
    connection.request("GET", "/v2/health/ready")
    with contextlib.closing(connection):
        return connection.getresponse().status == 200


def test_beyond_the_limit_the_oldest_goes(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    with running(
        always(NumberEngine()), certificate=certificate, private_key=key, max_connections=20, header_timeout=1000.0
    ) as service, contextlib.ExitStack() as stack:  # fmt: skip
        half = [opened(service, stack) for _ in range(25)]
        left = handshakes(20)
        for connection in half[: 25 - left]:
            assert connection.recv(1) == b""
        assert ready(service, certificate)  # takes the place of one more
        assert half[25 - left].recv(1) == b""
        half[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            half[-1].recv(1)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_has_a_limit_of_time(sent: bytes, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    with running(
        always(NumberEngine()), certificate=certificate, private_key=key, header_timeout=0.3
    ) as service, contextlib.ExitStack() as stack:  # fmt: skip
        half = opened(service, stack)
        half.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while half.recv(100):
                pass
        assert ready(service, certificate)


def test_those_under_way_do_not_hold_up_the_stop(pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    with running(
        always(NumberEngine()), certificate=certificate, private_key=key, header_timeout=1000.0, drain=1000.0
    ) as service, contextlib.ExitStack() as stack:  # fmt: skip
        half = [opened(service, stack) for _ in range(20)]
        assert ready(service, certificate)
        service.stop()
        for connection in half:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""

"""Which model answers, and what the service says of its models."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from evovit_deploy.engines import Engine
from evovit_deploy.errors import InputError
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

from .engines import PATIENCE, NumberEngine
from .running import always, running


def photo() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (3, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


class Numbered(NumberEngine):
    """The class it finds is its version's last digit."""

    def __init__(self, version: str) -> None:
        super().__init__(add=int(version))
        if version == "2":  # a file of another tool
            self.spec = dataclasses.replace(self.spec, transform=None)


def by_version(source: ModelSource, settings: ServiceSettings) -> Engine:
    return Numbered(source.version)


@pytest.mark.parametrize("model", ["", "model=m&"])
@pytest.mark.parametrize(
    ("version", "status", "found"), [("1", 200, "1"), ("2", 200, "2"), ("77", 404, ""), ("..", 404, ""), ("", 200, "2")]
)
def test_classify_takes_the_version_it_is_asked_for(model: str, version: str, status: int, found: str) -> None:
    with running(by_version, "m:1", "m:2") as service:
        got, _, answer = service.call("POST", f"/v1/classify?{model}version={version}", photo())
        assert got == status
        assert f'"version":"{found}"' in answer.decode() if found else b"has no version" in answer


@pytest.mark.parametrize(
    ("top_k", "status"),
    [
        *(("1", 200), ("0000002", 200), ("0" * 30 + "1", 200), ("9" * 5000, 200)),
        *((text, 400) for text in ("0", "00", "-1", "+1", "1.0", "\u0663", "")),
    ],
)
def test_top_k_is_a_whole_number(top_k: str, status: int) -> None:
    with running(always(NumberEngine())) as service:
        assert service.call("POST", f"/v1/classify?top_k={quote(top_k)}", photo())[0] == status


def test_what_is_served_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evovit.serve")
    with running(by_version, "m:1", "m:2"):
        pass
    said = [record.getMessage() for record in caplog.records]
    for version in "12":
        assert any(line.startswith(f"model: m version {version}, 4 px uint8") for line in said)
    assert sum("as for ImageNet" in line for line in said) == 1


@pytest.mark.parametrize("loaded", [True, False], ids=["again", "anew"])
def test_a_load_that_the_stop_overtakes_is_refused_with_503(loaded: bool) -> None:
    opening, go_on = threading.Event(), threading.Event()
    opened: list[NumberEngine] = []

    def opener(source: ModelSource, settings: ServiceSettings) -> Engine:
        opened.append(NumberEngine())
        if len(opened) > 1:
            opening.set()
            assert go_on.wait(PATIENCE)
        return opened[-1]

    with running(opener, control=True, drain=1000.0) as service, ThreadPoolExecutor(2) as pool:
        if not loaded:
            assert service.json("POST", "/v2/repository/models/m/unload", {})[0] == 200
        load = pool.submit(service.json, "POST", "/v2/repository/models/m/load", {})
        assert opening.wait(PATIENCE)
        repository = service.service.models
        repository.close(0)  # what the service does at the end
        go_on.set()
        status, answer = load.result(PATIENCE)
        assert (status, answer["error"]) == (503, "the service stops; no model is loaded any more.")
        assert repository.loaded() == []
        assert service.json("POST", "/v2/repository/models/m/load", {})[0] == 503


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Make a certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate with")

    def make(*options: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("tls")
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
            + [*(options or ("-nodes",)), "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
        return certificate, key

    return make


def test_a_key_that_is_not_the_certificates_is_said(pair: Callable[..., tuple[Path, Path]]) -> None:
    (certificate, key), (other, _) = pair(), pair()
    _, secret = locked = pair("-passout", "pass:x")
    for given, reason in (
        ((other, key), f"{key} is not the private key of {other}"),
        ((key, certificate), "not a certificate and its private key"),
        (locked, f"{secret} are not a certificate and its private key"),
    ):
        with pytest.raises(InputError) as caught, running(
            always(NumberEngine()), certificate=given[0], private_key=given[1]
        ):  # fmt: skip
            pass
        assert reason in str(caught.value)
        assert "port" not in str(caught.value)


def test_handshakes_that_do_not_end_do_not_hold_up_the_stop(pair: Callable[..., tuple[Path, Path]]) -> None:
    certificate, key = pair()
    half: list[socket.socket] = []
    options: dict[str, Any] = {"certificate": certificate, "private_key": key, "drain": 1000.0}
    with contextlib.ExitStack() as stack, running(always(NumberEngine()), **options, header_timeout=1000.0) as service:
        for address in (service.http.removeprefix("https://"), service.grpc):
            host, _, port = address.rpartition(":")
            half.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE)))
            half[-1].sendall(b"\x16\x03\x01\x02\x00\x01")
        service.stop()

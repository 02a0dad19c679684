"""A service on free ports of the loopback address, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evovit_deploy.engines.base import Engine
from evovit_deploy.serve.models import Opener
from evovit_deploy.serve.server import serve
from evovit_deploy.serve.service import Service
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

from .engines import PATIENCE


@dataclass
class Running:
    """A service and where it listens, ``host:port``."""

    service: Service
    http: str
    grpc: str
    stop: Any

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        connection = http.client.HTTPConnection(self.http, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, Any]:
        """The same with JSON."""
        body = None if document is None else json.dumps(document)
        status, _, answer = self.call(method, path, body, headers)
        return status, json.loads(answer)


@contextmanager
def running(
    opener: Opener, *names: str, labels: Path | None = None, lost: int = 0, **settings: Any
) -> Iterator[Running]:
    """Serve ``names`` (``m`` by default), each opened by ``opener``; fails unless it ends with ``lost`` requests lost."""
    sources = ModelSource.parse_all([f"{name}=unused.onnx" for name in names or ("m",)])
    service = Service(sources, ServiceSettings(port=0, grpc_port=0, **settings), labels=labels, opener=opener)
    ready, result = threading.Event(), {}

    async def main() -> None:
        result["loop"], result["stop"] = asyncio.get_running_loop(), asyncio.Event()
        result["lost"] = await serve(service, on_ready=told, stop=result["stop"])

    def told(addresses: dict[str, str]) -> None:
        result.update(addresses)
        ready.set()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            result["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    if "error" in result:
        raise result["error"]

    def stop() -> int:
        if thread.is_alive():
            result["loop"].call_soon_threadsafe(result["stop"].set)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if "error" in result:
            raise result["error"]
        return result["lost"]

    try:
        yield Running(service, result["http"].rpartition("//")[2], result["grpc"], stop)
    finally:
        ended = stop()
    assert ended == lost


def always(engine: Engine) -> Opener:
    """An opener that gives the same engine."""
    return lambda source, settings: engine


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    waiting = threading.Event()
    for _ in range(PATIENCE * 500):
        if condition():
            return
        waiting.wait(0.002)
    raise AssertionError("it never came")

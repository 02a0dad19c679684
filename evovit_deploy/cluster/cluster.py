"""A Ray cluster of this program's own on the loopback address, or a connection to one that runs; and a service on it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import EngineError, EvoVitError, InputError, ModelFileError
from ..serve.listening import free_port
from ..serve.server import Addresses
from ..storage.missing import no_such_file
from .application import application, require
from .options import RayOptions

__all__ = ["APPLICATION", "LOCAL", "LOCAL_ENVIRONMENT", "connected", "run"]

APPLICATION = "evovit"  # name of the application in Ray Serve
LOCAL = "local"  # the address that starts a cluster
# Of a cluster that is started here, read when Ray is imported: a token, and Ray's way to say one machine, loopback only.
LOCAL_ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextlib.contextmanager
def connected(address: str = LOCAL) -> Iterator[None]:
    """Use a Ray cluster within the block: ``local`` starts one on this machine, which ends with the block; ``auto`` is one that
    runs on this machine, ``HOST:PORT`` one that runs elsewhere.

    A cluster that is started asks for a token (``RAY_AUTH_MODE=token``, unless the variable is set) and has no dashboard.
    Ray is kept to the loopback address if it was not imported before.

    Raises:
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    if address == LOCAL:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    require()
    import ray

    if ray.is_initialized():  # by the program around; it stays as it is
        yield
        return
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"no Ray cluster at {address}: {error}. Start one with: RAY_AUTH_MODE=token ray start --head"
        ) from error
    for name in ("ray.serve", "ray.data"):  # they talk at every step
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def run(
    options: RayOptions, *, host: str = "127.0.0.1", port: int = 8000, address: str = LOCAL, token: str | None = None,
    on_ready: Callable[[Addresses], None] | None = None, stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Serve on a Ray cluster until SIGTERM, SIGINT or ``stop``; then the application is taken down, its requests being answered.

    Args:
        options: Models and replicas.
        host, port: Of Ray's HTTP, on every node that has a replica; port 0 takes a free one of this machine.
        address: As for :func:`connected`.
        token: Bearer token for clients.
        on_ready: Called with the address when every replica is ready.
        stop: Ends the service when set; signals are not touched then.

    Raises:
        InputError: A port that is taken.
        ModelFileError: No such file on this machine (for a local cluster).
        EvoVitError: A replica does not start.
    """
    if address == LOCAL:
        for source in options.sources():
            if not source.path.is_file():
                raise no_such_file(source.path, ModelFileError)
        port = free_port(host, port)
    elif not port:
        raise InputError("port 0 is for a local cluster; name the port that every node should listen on.")
    with connected(address):
        from ray import serve

        stopping = stop or _on_signals()
        serve.start(http_options={"host": host, "port": port})
        try:
            serve.run(application(options, token=token), name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise EvoVitError(f"the application does not start on Ray: {error}") from error
        try:
            if on_ready is not None:
                on_ready({"http": f"http://{host}:{port}"})
            while not stopping.wait(1):  # in pieces, so that signals get through
                pass
        finally:
            serve.delete(APPLICATION)
            if address == LOCAL:
                serve.shutdown()  # type: ignore[no-untyped-call]


def _on_signals() -> threading.Event:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping

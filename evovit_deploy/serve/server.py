"""Runs a service: listens, loads, and stops on SIGTERM once accepted requests are answered."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..machine.extras import require
from .listening import check_tls, connections, joined, listen, more_files
from .models import Opener, open_engine
from .service import GRACE, STEP, Service
from .settings import ModelSource, ServiceSettings

if TYPE_CHECKING:
    import grpc
    import uvicorn

    from .grpc_service import GrpcService

__all__ = ["Addresses", "run", "serve"]

log = logging.getLogger("evovit.serve")
Addresses = dict[str, str]  # protocol -> address; what `on_ready` is told


def run(
    sources: list[ModelSource], settings: ServiceSettings, *, labels: Path | None = None,
    on_ready: Callable[[Addresses], None] | None = None, opener: Opener = open_engine,
) -> int:  # fmt: skip
    """Serve models in an event loop of this call's own until a signal comes; see :class:`Service` and :func:`serve`."""
    more_files()
    main = serve(Service(sources, settings, labels=labels, opener=opener), on_ready=on_ready)
    try:
        import uvloop
    except ImportError:  # not on every platform, and only faster
        return asyncio.run(main)
    return uvloop.run(main)


async def serve(
    service: Service, *, on_ready: Callable[[Addresses], None] | None = None, stop: asyncio.Event | None = None
) -> int:
    """Serve until SIGTERM, SIGINT or ``stop``.

    The addresses are open, and liveness answers, while models load; readiness comes when all are warm. On a signal readiness
    goes, no connection is taken any more, and what was accepted has ``settings.drain`` seconds to end; a second signal ends
    at once.

    Args:
        service: Not loaded yet.
        on_ready: Called with the addresses when the service is ready.
        stop: Ends the service when set; for use inside a program, where signals are not touched.

    Returns:
        How many accepted requests were not answered in time.

    Raises:
        InputError: A port that is taken, an address that is not this machine's, or a key that is not the certificate's.
        EvoVitError: A model that cannot be loaded.
    """
    require("serve", "serving")
    from .http_server import http_server

    settings = service.settings
    check_tls(settings)
    listening = listen(settings)
    room = connections(settings)
    guard, http = http_server(service, room)
    rpc: grpc.aio.Server | None = None
    methods: GrpcService | None = None
    rpc_port = 0
    if settings.grpc_port is not None:
        from .grpc_server import grpc_server

        rpc, rpc_port, methods = await grpc_server(service, room)
    stopping, own = stop or asyncio.Event(), stop is None
    if own:
        _on_signals(stopping)
    scheme = "https" if settings.certificate else "http"
    addresses = {"http": f"{scheme}://{joined(settings.host, listening.getsockname()[1])}"}
    if rpc is not None:
        addresses["grpc"] = joined(settings.host, rpc_port)
    serving = asyncio.ensure_future(http.serve(sockets=[listening]))
    loading = asyncio.ensure_future(service.load_in_thread(service.load))
    waiting = asyncio.ensure_future(stopping.wait())
    watching = [asyncio.ensure_future(each.watch()) for each in (guard, methods) if each is not None]
    try:
        await asyncio.wait((loading, waiting, serving), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            for model in service.models.loaded():
                log.info("model: %s", model.summary)
            if on_ready is not None:
                on_ready(addresses)
            await asyncio.wait((waiting, serving), return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping; accepted requests have %g s", settings.drain)
    finally:
        lost = await _drain(service, http, serving, rpc, methods)
        for task in (waiting, *watching):
            task.cancel()
        listening.close()
    return lost


async def _drain(
    service: Service, http: uvicorn.Server, serving: asyncio.Future[None], rpc: Any, methods: GrpcService | None
) -> int:
    """Refuse what is new, let accepted requests end, then close the models."""
    loop, drain = asyncio.get_running_loop(), service.settings.drain
    end = loop.time() + drain
    service.stopping = True
    # What is on its way has a moment to arrive; what does not is no accepted request, and is not waited for.
    loop.call_later(min(drain, GRACE), service.capacity.lose_arriving)
    http.should_exit = True
    ends: list[asyncio.Future[Any]] = [serving]
    if rpc is not None and methods is not None:
        methods.streams.stop()
        ends.append(asyncio.ensure_future(rpc.stop(drain + GRACE)))
    late = await _ended(service, ends, end)
    lost = await service.close(0.0 if late else GRACE)  # what is late gets its 503 now
    await asyncio.wait(ends, timeout=GRACE / 4)
    if rpc is not None:
        await rpc.stop(0)
    http.force_exit = True
    await serving
    return lost


async def _ended(service: Service, ends: list[asyncio.Future[Any]], end: float) -> bool:
    """Wait until the servers end, or only connections without a request are left; True if the time is over before."""
    idle = 0.0
    while left := {future for future in ends if not future.done()}:
        seconds = end - asyncio.get_running_loop().time()
        if seconds <= 0:
            return True
        if idle >= GRACE / 2:
            return False
        await asyncio.wait(left, timeout=min(STEP, seconds), return_when=asyncio.FIRST_COMPLETED)
        idle = idle + STEP if service.capacity.idle else 0.0
    return False


def _on_signals(stopping: asyncio.Event) -> None:
    """The first signal stops in order; a second one takes its usual course."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))

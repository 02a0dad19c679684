"""Runs a service: listens, loads, and stops on SIGTERM once accepted requests are answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..machine.extras import require
from .http import build_app
from .limits import LOOKAHEAD
from .models import Opener, open_engine
from .service import Service
from .settings import ModelSource, Settings

if TYPE_CHECKING:
    import grpc
    import uvicorn

    from .grpc_streams import Streams
    from .http_protocol import Guard

__all__ = ["Addresses", "free_port", "run", "serve"]

MAX_PENDING = 100_000  # gRPC requests that have come and that Python has not seen yet
KEEP_ALIVE_MS = 60_000  # between the questions whether a gRPC client with an open call is still there
BACKLOG = 2048  # connections that the system holds until they are taken
OWN_FILES = 128  # that the process needs beside its connections
GRACE = 2.0  # seconds for what is on its way when the service stops
STEP = 0.05  # seconds between looks at what is left
log = logging.getLogger("evovit.serve")
Addresses = dict[str, str]  # protocol -> address; what `on_ready` is told


def run(
    sources: list[ModelSource], settings: Settings, *, labels: Path | None = None,
    on_ready: Callable[[Addresses], None] | None = None, opener: Opener = open_engine,
) -> int:  # fmt: skip
    """Serve models in an event loop of this call's own until a signal comes; see :class:`Service` and :func:`serve`."""
    _more_files()
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
    settings = service.settings
    _check_tls(settings)
    listening = _listen(settings)
    connections = _connections(settings)
    guard, http = _http_server(service, connections)
    rpc, rpc_port, streams = await _grpc_server(service, connections)
    stopping, own = stop or asyncio.Event(), stop is None
    if own:
        _on_signals(stopping)
    scheme = "https" if settings.certificate else "http"
    addresses = {"http": f"{scheme}://{_joined(settings.host, listening.getsockname()[1])}"}
    if rpc is not None:
        addresses["grpc"] = _joined(settings.host, rpc_port)
    serving = asyncio.ensure_future(http.serve(sockets=[listening]))
    loading = asyncio.ensure_future(service.load_in_thread(service.load))
    waiting, watching = asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(guard.watch())
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
        lost = await _drain(service, http, serving, rpc, streams)
        waiting.cancel()
        watching.cancel()
        listening.close()
    return lost


async def _drain(
    service: Service, http: uvicorn.Server, serving: asyncio.Future[None], rpc: Any, streams: Streams | None
) -> int:
    """Refuse what is new, let accepted requests end, then close the models."""
    loop, drain = asyncio.get_running_loop(), service.settings.drain
    end = loop.time() + drain
    service.stopping = True
    # What is on its way has a moment to arrive; what does not is no accepted request, and is not waited for.
    loop.call_later(min(drain, GRACE), service.capacity.lose_arriving)
    http.should_exit = True
    ends: list[asyncio.Future[Any]] = [serving]
    if rpc is not None and streams is not None:
        streams.stop()
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


def _check_tls(settings: Settings) -> None:
    """Raise InputError unless the certificate and the key can be read and belong together."""
    certificate, key = settings.certificate, settings.private_key
    if certificate is None or key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(
                f"{key} is not the private key of {certificate}; give the two that belong together."
            ) from error
        raise InputError(
            f"{certificate} and {key} are not a certificate and its private key ({error.reason or 'unreadable'}). "
            "Both must be PEM files, and the key without a passphrase."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{certificate} or {key} cannot be read: {error}") from error


def free_port(host: str, port: int) -> int:
    """Return ``port`` if it can be listened on now, or a free one for 0; for a server that opens its ports itself.

    Raises:
        InputError: It is taken, or the host is not this machine's.
    """
    listening = _listen(Settings(host=host, port=port, grpc_port=None))
    with listening:
        found: int = listening.getsockname()[1]
    return found


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "not a host name"
        raise InputError(
            f"cannot listen on {_joined(settings.host, settings.port)}: {reason}. Choose another --port or --host."
        ) from error
    listening.setblocking(False)
    return listening


def _connections(settings: Settings) -> int:
    """Connections that may be open, of each protocol: as many as the settings say and the system's limit of files allows."""
    try:
        import resource
    except ImportError:  # Windows
        return settings.max_connections
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return settings.max_connections
    room = max(8, (files - OWN_FILES) // (1 if settings.grpc_port is None else 2))
    if room < settings.max_connections:
        log.warning("the system allows %d open files: %d connections of each protocol at most (ulimit -n)", files, room)
    return min(room, settings.max_connections)


def _more_files() -> None:
    """Raise the limit of open files to what this user may have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _http_server(service: Service, connections: int) -> tuple[Guard, uvicorn.Server]:
    import uvicorn

    from .http_protocol import Guard, LimitedProtocol

    settings = service.settings
    limits = Guard(settings, connections)

    class Protocol(LimitedProtocol):
        guard = limits

    config = uvicorn.Config(
        build_app(service),
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=math.ceil(settings.idle_timeout),
        timeout_graceful_shutdown=math.ceil(settings.drain + GRACE),
        ssl_certfile=None if settings.certificate is None else str(settings.certificate),
        ssl_keyfile=None if settings.private_key is None else str(settings.private_key),
    )

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            """Signals are handled for HTTP and gRPC together."""
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            """uvicorn's own, with a limit of time for TLS handshakes."""
            await self.lifespan.startup()
            loop = asyncio.get_running_loop()
            tls: dict[str, Any] = {"ssl_handshake_timeout": settings.header_timeout} if config.ssl else {}

            def connection() -> asyncio.Protocol:
                return Protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

            self.servers = [
                await loop.create_server(connection, sock=each, ssl=config.ssl, backlog=BACKLOG, **tls)
                for each in sockets or []
            ]
            self.started = True

        async def _wait_tasks_to_complete(self) -> None:
            """uvicorn's own, without waiting for TLS handshakes, which no request can come of any more."""
            while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
                await asyncio.sleep(STEP)

    return limits, Server(config)


async def _grpc_server(service: Service, connections: int) -> tuple[grpc.aio.Server | None, int, Streams | None]:
    settings = service.settings
    if settings.grpc_port is None:
        return None, 0, None
    import grpc

    from .grpc_service import add_grpc

    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.max_bytes),
            ("grpc.per_message_decompression", 0),  # the service does it, within its limits of memory
            ("grpc.max_concurrent_streams", settings.max_concurrent),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.max_connection_idle_ms", round(settings.idle_timeout * 1000)),
            ("grpc.server_handshake_timeout_ms", round(settings.header_timeout * 1000)),
            ("grpc.keepalive_time_ms", KEEP_ALIVE_MS),
            ("grpc.http2.lookahead_bytes", LOOKAHEAD),
            ("grpc.http2.bdp_probe", 0),  # it would let each call that waits for its turn send megabytes ahead
            ("grpc.max_send_message_length", settings.max_bytes),
            ("grpc.so_reuseport", 0),
            # From 1,000 requests on that wait for Python, grpc would end some at random, with CANCELLED and no advice to
            # come again; the service refuses them itself.
            ("grpc.server.max_pending_requests", MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
        )
    )
    streams = add_grpc(service, server)
    address = _joined(settings.host, settings.grpc_port)
    try:
        if settings.certificate is None or settings.private_key is None:
            port = server.add_insecure_port(address)
        else:
            pair = (settings.private_key.read_bytes(), settings.certificate.read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise InputError(f"cannot listen on {address} for gRPC. Choose another --grpc-port or --host.") from error
    await server.start()
    return server, port, streams


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


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

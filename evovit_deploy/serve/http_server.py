"""uvicorn with the limits of a service, and without its handling of signals."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from typing import Any

import uvicorn

from .handshakes import TlsListener
from .http import build_app
from .http_protocol import Guard, LimitedProtocol
from .memory import handshakes
from .service import GRACE, STEP, Service

__all__ = ["http_server"]

BACKLOG = 2048  # connections that the system holds until they are taken


def http_server(service: Service, connections: int) -> tuple[Guard, uvicorn.Server]:
    """Return the server, not started, and what limits its connections."""
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
            """uvicorn's own, with limits for TLS handshakes."""
            await self.lifespan.startup()
            loop = asyncio.get_running_loop()

            def connection() -> asyncio.Protocol:
                return Protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

            most = handshakes(connections)
            self.servers: list[Any] = [
                await loop.create_server(connection, sock=each, backlog=BACKLOG)
                if config.ssl is None
                else TlsListener(each, BACKLOG, config.ssl, connection, most=most, seconds=settings.header_timeout)
                for each in sockets or []
            ]
            self.started = True

        async def _wait_tasks_to_complete(self) -> None:
            """uvicorn's own, without waiting for TLS handshakes, which no request can come of any more."""
            while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
                await asyncio.sleep(STEP)

    return limits, Server(config)

"""grpc's server with the limits of a service."""

from __future__ import annotations

import grpc

from ..errors import InputError
from .grpc_service import GrpcService, add_grpc
from .listening import joined
from .memory import LOOKAHEAD
from .service import Service

__all__ = ["grpc_server"]

MAX_PENDING = 100_000  # gRPC requests that have come and that Python has not seen yet
KEEP_ALIVE_MS = 60_000  # between the questions whether a gRPC client with an open call is still there


async def grpc_server(service: Service, connections: int) -> tuple[grpc.aio.Server, int, GrpcService]:
    """Start the server; returns it, its port and its methods, whose streams are to be stopped before it.

    Raises:
        InputError: The port is taken, or the host is not this machine's.
    """
    settings = service.settings
    assert settings.grpc_port is not None
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
    methods = add_grpc(service, server)
    address = joined(settings.host, settings.grpc_port)
    try:
        if settings.certificate is None or settings.private_key is None:
            port = server.add_insecure_port(address)
        else:
            pair = (settings.private_key.read_bytes(), settings.certificate.read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise InputError(f"cannot listen on {address} for gRPC. Choose another --grpc-port or --host.") from error
    await server.start()
    return server, port, methods

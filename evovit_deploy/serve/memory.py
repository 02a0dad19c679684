"""How much memory clients can make a service take, from its settings; docs/production.md explains the terms."""

from __future__ import annotations

from .logs import LINES, MAX_LINE
from .settings import ServiceSettings

__all__ = ["grpc_turns", "handshakes", "worst_memory"]

CONNECTION = 320 << 10  # bytes that uvicorn and its transport read ahead
TLS = 384 << 10  # bytes of a connection that is encrypted here, shaking hands or open
LOOKAHEAD = 160 << 10  # bytes that a gRPC call may send before its message is asked for: one uint8 image of 224 pixels
PIXEL = 12  # bytes while an image is decoded
READERS = 2  # threads that read large requests


def grpc_turns(settings: ServiceSettings) -> int:
    """Return how many messages of gRPC may arrive at once outside of streams."""
    return max(1, settings.body_bytes // settings.max_bytes)


def handshakes(connections: int) -> int:
    """Return how many TLS handshakes over HTTP may be under way at once, beside the open connections."""
    return max(1, connections // 4)


def worst_memory(settings: ServiceSettings, image_bytes: int, models: int = 1) -> dict[str, int]:
    """Return the bytes that each kind of thing may take at most, beside the process with its idle engines and what runs in them.

    Args:
        settings: Of the service.
        image_bytes: Of one image as the model takes it.
        models: Models that are served.
    """
    found = {
        "requests and answers": settings.body_bytes,
        "requests that are being read": (1 + 2 * READERS) * settings.max_bytes,
        "HTTP connections": settings.max_connections * ((settings.max_header_kib << 10) + CONNECTION),
        "images that are being decoded": settings.max_pixels * PIXEL,
        "images that wait": models * settings.max_queue * image_bytes,
        "log": LINES * MAX_LINE,
    }
    if settings.certificate is not None:
        found["TLS"] = (settings.max_connections + handshakes(settings.max_connections)) * TLS
    if settings.grpc_port is not None:
        found["gRPC messages that arrive"] = (grpc_turns(settings) + settings.max_streams) * settings.max_bytes
        # For their turn, in their place, to be read.
        found["gRPC calls that wait"] = 3 * settings.max_concurrent * LOOKAHEAD
    return found

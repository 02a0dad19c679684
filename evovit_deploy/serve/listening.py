"""Where a service listens: its socket, its certificate, and how many connections the system lets it have."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl

from ..errors import InputError
from .settings import ServiceSettings

__all__ = ["check_tls", "connections", "free_port", "joined", "listen", "more_files"]

OWN_FILES = 128  # that the process needs beside its connections
log = logging.getLogger("evovit.serve")


def check_tls(settings: ServiceSettings) -> None:
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
    listening = listen(ServiceSettings(host=host, port=port, grpc_port=None))
    with listening:
        found: int = listening.getsockname()[1]
    return found


def listen(settings: ServiceSettings) -> socket.socket:
    """Return a socket on the address and port of HTTP.

    Raises:
        InputError: The port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "not a host name"
        raise InputError(
            f"cannot listen on {joined(settings.host, settings.port)}: {reason}. Choose another --port or --host."
        ) from error
    listening.setblocking(False)
    return listening


def connections(settings: ServiceSettings) -> int:
    """Connections that may be open, of each protocol: as many as the settings say and the system's limit of files allows."""
    try:
        import resource
    except ImportError:  # Windows
        return settings.max_connections
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return settings.max_connections
    shares = 1.0 if settings.certificate is None else 1.25  # with those that shake hands
    shares += settings.grpc_port is not None
    room = max(8, int((files - OWN_FILES) / shares))
    if room < settings.max_connections:
        log.warning("the system allows %d open files: %d connections of each protocol at most (ulimit -n)", files, room)
    return min(room, settings.max_connections)


def more_files() -> None:
    """Raise the limit of open files to what this user may have."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def joined(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Groups of options of the service, and what the library makes of each. See :mod:`._groups`."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..storage.missing import no_such_file
from . import _options as shared
from ._limits import ServiceSettings, limit

__all__ = ["Limited", "Listening", "OnRay"]

TOKEN = "EVOVIT_TOKEN"
NETWORK, CONNECTIONS = "Network", "Connections"


@dataclass(frozen=True)
class Listening:
    """Where the service listens, and to whom."""

    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all of this machine's.", rich_help_panel=NETWORK
        ),
    ] = ServiceSettings.host
    port: Annotated[
        int, typer.Option(metavar="PORT", help="HTTP port; 0 takes a free one.", rich_help_panel=NETWORK)
    ] = ServiceSettings.port
    grpc_port: Annotated[
        int, typer.Option(metavar="PORT", help="gRPC port; 0 takes a free one.", rich_help_panel=NETWORK)
    ] = 8001
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Serve HTTP only.", rich_help_panel=NETWORK)] = False
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"File with the bearer token that clients must send; or set {TOKEN}.",
            rich_help_panel=NETWORK,
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM file; with --tls-key, HTTPS and gRPC over TLS.", rich_help_panel=NETWORK
        ),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of the private key.", rich_help_panel=NETWORK)
    ] = None
    allow_control: Annotated[
        bool,
        typer.Option("--allow-control", help="Let clients reload and unload these models.", rich_help_panel=NETWORK),
    ] = False

    def fields(self) -> dict[str, Any]:
        """Return them under the names of :class:`ServiceSettings`.

        Raises:
            InputError: The token cannot be read.
        """
        return {
            "host": self.host,
            "port": self.port,
            "grpc_port": None if self.no_grpc else self.grpc_port,
            "token": _token(self.token_file),
            "certificate": self.tls_certificate,
            "private_key": self.tls_key,
            "control": self.allow_control,
        }


@dataclass(frozen=True)
class Limited:
    """How engines run, and what requests and connections may take; the names are those of :class:`ServiceSettings`."""

    provider: shared.Provider = "auto"
    threads: shared.Threads = None
    workers: Annotated[int, limit("workers", shared.RUN)] = ServiceSettings.workers
    max_batch: shared.ServedBatch = ServiceSettings.max_batch
    max_delay_ms: shared.MaxDelayMs = ServiceSettings.max_delay_ms
    fixed_batch: Annotated[
        bool,
        typer.Option(
            "--fixed-batch",
            help="Run every batch at its full size, so that answers never differ in a bit.",
            rich_help_panel=shared.BATCHING,
        ),
    ] = False
    max_queue: shared.MaxQueue = ServiceSettings.max_queue
    timeout: Annotated[float, limit("timeout", shared.LIMITS)] = ServiceSettings.timeout
    run_timeout: Annotated[float, limit("run_timeout", shared.LIMITS)] = ServiceSettings.run_timeout
    max_request_mib: Annotated[int, limit("max_request_mib", shared.LIMITS)] = ServiceSettings.max_request_mib
    max_pixels: Annotated[int, limit("max_pixels", shared.LIMITS)] = ServiceSettings.max_pixels
    max_concurrent: Annotated[int, limit("max_concurrent", shared.LIMITS)] = ServiceSettings.max_concurrent
    body_timeout: Annotated[float, limit("body_timeout", shared.LIMITS)] = ServiceSettings.body_timeout
    max_body_mib: Annotated[int, limit("max_body_mib", shared.LIMITS)] = ServiceSettings.max_body_mib
    drain: shared.Drain = ServiceSettings.drain
    max_connections: Annotated[int, limit("max_connections", CONNECTIONS)] = ServiceSettings.max_connections
    max_streams: Annotated[int, limit("max_streams", CONNECTIONS)] = ServiceSettings.max_streams
    max_header_kib: Annotated[int, limit("max_header_kib", CONNECTIONS)] = ServiceSettings.max_header_kib
    header_timeout: Annotated[float, limit("header_timeout", CONNECTIONS)] = ServiceSettings.header_timeout
    idle_timeout: Annotated[float, limit("idle_timeout", CONNECTIONS)] = ServiceSettings.idle_timeout

    def fields(self) -> dict[str, Any]:
        """Return them by name."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class OnRay:
    """Whether and how Ray runs it."""

    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Serve the HTTP routes with Ray Serve, on one machine or many (extra `ray`).",
            rich_help_panel=shared.RAY,
        ),
    ] = False
    ray_address: shared.RayAddress = "local"
    replicas: shared.Replicas = "1"
    cpus: shared.Cpus = 1.0
    gpus: shared.Gpus = 0.0

    def check(self) -> None:
        """Raise InputError for options of Ray without --ray."""
        if self != OnRay(ray=self.ray) and not self.ray:
            raise InputError("--ray-address, --replicas, --cpus and --gpus go with --ray.")


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN, "").strip() or None  # a secret made from a file ends in a newline
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise no_such_file(path, InputError, "It should hold the token.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}.") from error

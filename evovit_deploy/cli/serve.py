"""`evovit serve`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, ModelFileError
from ..storage.files import plain, printable
from ..storage.missing import no_such_file
from ..storage.names import label_of
from . import _options as shared
from ._console import err
from ._limits import ServiceSettings, limit
from ._ray import serve_on_ray

__all__ = ["serve"]

TOKEN = "EVOVIT_TOKEN"
NETWORK, CONNECTIONS = "Network", "Connections"


def serve(
    engines: Annotated[
        list[str],
        typer.Argument(
            help="Models: FILE, NAME=FILE or NAME:VERSION=FILE. NAME is by default made of the file's, and the versions of "
            "a name count from 1.",
            metavar="MODEL",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all of this machine's.", rich_help_panel=NETWORK
        ),
    ] = ServiceSettings.host,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="HTTP port; 0 takes a free one.", rich_help_panel=NETWORK)
    ] = ServiceSettings.port,
    grpc_port: Annotated[
        int, typer.Option(metavar="PORT", help="gRPC port; 0 takes a free one.", rich_help_panel=NETWORK)
    ] = 8001,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Serve HTTP only.", rich_help_panel=NETWORK)] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"File with the bearer token that clients must send; or set {TOKEN}.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PEM file; with --tls-key, HTTPS and gRPC over TLS.", rich_help_panel=NETWORK
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file of the private key.", rich_help_panel=NETWORK)
    ] = None,
    allow_control: Annotated[
        bool,
        typer.Option("--allow-control", help="Let clients reload and unload these models.", rich_help_panel=NETWORK),
    ] = False,
    labels: shared.Labels = None,
    provider: shared.Provider = "auto",
    threads: shared.Threads = None,
    workers: Annotated[int, limit("workers", shared.RUN)] = ServiceSettings.workers,
    max_batch: shared.ServedBatch = ServiceSettings.max_batch,
    max_delay_ms: shared.MaxDelayMs = ServiceSettings.max_delay_ms,
    fixed_batch: Annotated[
        bool,
        typer.Option(
            "--fixed-batch",
            help="Run every batch at its full size, so that answers never differ in a bit.",
            rich_help_panel=shared.BATCHING,
        ),
    ] = False,
    max_queue: shared.MaxQueue = ServiceSettings.max_queue,
    timeout: Annotated[float, limit("timeout", shared.LIMITS)] = ServiceSettings.timeout,
    run_timeout: Annotated[float, limit("run_timeout", shared.LIMITS)] = ServiceSettings.run_timeout,
    max_request_mib: Annotated[int, limit("max_request_mib", shared.LIMITS)] = ServiceSettings.max_request_mib,
    max_pixels: Annotated[int, limit("max_pixels", shared.LIMITS)] = ServiceSettings.max_pixels,
    max_concurrent: Annotated[int, limit("max_concurrent", shared.LIMITS)] = ServiceSettings.max_concurrent,
    body_timeout: Annotated[float, limit("body_timeout", shared.LIMITS)] = ServiceSettings.body_timeout,
    max_body_mib: Annotated[int, limit("max_body_mib", shared.LIMITS)] = ServiceSettings.max_body_mib,
    drain: shared.Drain = ServiceSettings.drain,
    max_connections: Annotated[int, limit("max_connections", CONNECTIONS)] = ServiceSettings.max_connections,
    max_streams: Annotated[int, limit("max_streams", CONNECTIONS)] = ServiceSettings.max_streams,
    max_header_kib: Annotated[int, limit("max_header_kib", CONNECTIONS)] = ServiceSettings.max_header_kib,
    header_timeout: Annotated[float, limit("header_timeout", CONNECTIONS)] = ServiceSettings.header_timeout,
    idle_timeout: Annotated[float, limit("idle_timeout", CONNECTIONS)] = ServiceSettings.idle_timeout,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Serve the HTTP routes with Ray Serve, on one machine or many (extra `ray`).",
            rich_help_panel=shared.RAY,
        ),
    ] = False,
    ray_address: shared.RayAddress = "local",
    replicas: shared.Replicas = "1",
    cpus: shared.Cpus = 1.0,
    gpus: shared.Gpus = 0.0,
    no_access_log: Annotated[
        bool,
        typer.Option("--no-access-log", help="Do not log each request on stderr.", rich_help_panel=shared.OUTPUT),
    ] = False,
) -> None:
    """Serve models over HTTP and gRPC (KServe v2), with image classification and metrics.

    Examples:
      evovit serve model.onnx --labels labels.txt
      evovit serve digits=digits.onnx digits:2=digits_fp16.onnx --port 9000 --no-grpc
      evovit serve model.onnx --ray --replicas 1-4

    Then: curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/classify
    """
    from ..machine.extras import require
    from ..serve.server import run
    from ..serve.settings import ModelSource

    if not ray:  # which has to find its settings in the environment when it is imported
        require("serve", "serving")
    settings = ServiceSettings(
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        provider=provider,
        threads=threads,
        max_batch=max_batch,
        fixed_batch=fixed_batch,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        workers=workers,
        run_timeout=run_timeout,
        timeout=timeout,
        max_request_mib=max_request_mib,
        max_pixels=max_pixels,
        max_concurrent=max_concurrent,
        body_timeout=body_timeout,
        max_body_mib=max_body_mib,
        max_connections=max_connections,
        max_streams=max_streams,
        max_header_kib=max_header_kib,
        header_timeout=header_timeout,
        idle_timeout=idle_timeout,
        drain=drain,
        token=_token(token_file),
        certificate=tls_certificate,
        private_key=tls_key,
        control=allow_control,
    )
    sources = ModelSource.parse_all(engines)
    if not ray or ray_address == "local":
        _check_files(engines)
    if host not in ("127.0.0.1", "::1", "localhost") and settings.token is None:
        err().print(
            f"note: {host} is reachable from other machines, and no token is needed (--token-file).",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if ray:
        for source in sources:
            err().print(
                f"model: {source.name} version {source.version}, from {printable(source.path)}",
                markup=False,
                soft_wrap=True,
            )
        serve_on_ray(sources, settings, labels, ray_address, replicas, (cpus, gpus), _announce)
        return
    if (ray_address, replicas, cpus, gpus) != ("local", "1", 1.0, 0.0):
        raise InputError("--ray-address, --replicas, --cpus and --gpus go with --ray.")
    log = _log_to_stderr(access=not no_access_log)
    try:
        lost = run(sources, settings, labels=labels, on_ready=lambda addresses: _announce(addresses, log.info))
        if lost:
            log.warning("%d accepted requests were not answered within %g s.", lost, drain)
    finally:
        log.handlers[0].close()
    if lost:
        raise typer.Exit(1)


def _check_files(engines: list[str]) -> None:
    """Name both files that ``NAME=FILE`` may have meant where neither is there."""
    for text in engines:
        if (parts := label_of(text)) is not None and not os.path.exists(parts[1]):
            fix = f"Nor is there a file {plain(text)}, where {plain(parts[0])}= would not be a name but a part of it."
            raise no_such_file(parts[1], ModelFileError, fix)


def _announce(addresses: dict[str, str], say: Callable[[str], None] | None = None) -> None:
    for protocol, address in addresses.items():
        line = f"ready: {protocol:4} {address}"
        err().print(line, markup=False, soft_wrap=True) if say is None else say(line)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN, "").strip() or None  # a secret made from a file ends in a newline
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise no_such_file(path, InputError, "It should hold the token.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}.") from error


def _log_to_stderr(*, access: bool) -> logging.Logger:
    """Everything that is logged goes through one thread, so that a reader of stderr who stalls does not stop the service."""
    from ..serve.logs import BackgroundHandler

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpc's own library would write by itself
    handler = BackgroundHandler(sys.stderr)
    for name in ("evovit.serve", "evovit.access", "uvicorn", "asyncio", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name.startswith("evovit") else logging.WARNING)
    if not access:
        logging.getLogger("evovit.access").setLevel(logging.WARNING)
    return logging.getLogger("evovit.serve")

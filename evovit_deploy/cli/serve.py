"""`evovit serve`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ._choices import Provider
from ._console import err
from ._ray import serve_on_ray

__all__ = ["serve"]

TOKEN = "EVOVIT_TOKEN"


def serve(
    engines: Annotated[
        list[str],
        typer.Argument(
            help="Models: FILE, NAME=FILE or NAME:VERSION=FILE. The name is the file's stem by default, and versions of a "
            "name count from 1.",
            metavar="ENGINE...",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="HTTP only.")] = False,
    labels: Annotated[Path | None, typer.Option(help="Class names for /v1/classify, as for `evovit predict`.")] = None,
    provider: Annotated[Provider, typer.Option(help="auto: CUDA where it works, else the CPU.")] = Provider.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads within an operator.")] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Images in a batch; default: the engine's most, or 32.")
    ] = None,
    fixed_batch: Annotated[
        bool,
        typer.Option("--fixed-batch", help="Run every batch at its full size, for answers that never differ in a bit."),
    ] = False,
    max_delay_ms: Annotated[float, typer.Option(min=0, help="How long a request may wait for a fuller batch.")] = 0.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Images that may wait; beyond, requests get 503.")] = 256,
    workers: Annotated[int, typer.Option(min=1, help="Batches at once; 2 helps on a GPU.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds until a request gets 504.")] = 30.0,
    run_timeout: Annotated[float, typer.Option(help="Seconds until a run of the engine counts as hung.")] = 60.0,
    max_request_mib: Annotated[int, typer.Option(min=1, help="Size of a request, MiB.")] = 64,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image for /v1/classify.")] = 50_000_000,
    max_concurrent: Annotated[int, typer.Option(min=1, help="Requests at work at once; beyond, 503.")] = 512,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that accepted requests have after SIGTERM.")] = 30.0,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the bearer token that clients must send; or set {TOKEN}.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file; with --tls-key, HTTPS and gRPC over TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the private key.")] = None,
    allow_control: Annotated[
        bool, typer.Option("--allow-control", help="Clients may reload and unload these models.")
    ] = False,
    no_access_log: Annotated[bool, typer.Option("--no-access-log", help="No line on stderr for each request.")] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve the HTTP routes with Ray Serve, on one machine or many (extra `ray`).")
    ] = False,
    ray_address: Annotated[
        str, typer.Option(help="Ray cluster: local starts one here, auto is the one that runs here, or HOST:PORT.")
    ] = "local",
    replicas: Annotated[
        str, typer.Option(help="With --ray, copies of the service: a number, or MIN-MAX to follow the load.")
    ] = "1",
    cpus: Annotated[float, typer.Option(min=0, help="With --ray, CPUs of each copy.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="With --ray, GPUs of each copy.")] = 0.0,
) -> None:
    """Serve models over HTTP and gRPC (KServe v2), with image classification and metrics.

    Examples:

        evovit serve model.onnx --labels labels.txt

        evovit serve digits=digits.onnx digits:2=digits_fp16.onnx --port 9000 --no-grpc

        curl --data-binary @image.png -H 'Content-Type: image/png' localhost:8000/v1/classify

        evovit serve model.onnx --ray --replicas 1-4
    """
    from ..extras import require
    from ..serve.server import run
    from ..serve.settings import ModelSource, Settings

    if not ray:  # which has to find its settings in the environment when it is imported
        require("serve", "serving")
    settings = Settings(
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        provider=provider.value,
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
        drain=drain,
        token=_token(token_file),
        certificate=tls_certificate,
        private_key=tls_key,
        control=allow_control,
    )
    sources = ModelSource.parse_all(engines)
    if host not in ("127.0.0.1", "::1", "localhost") and settings.token is None:
        err().print(
            f"note: {host} is reachable from other machines, and no token is needed (--token-file).",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if ray:
        serve_on_ray(sources, settings, labels, ray_address, replicas, (cpus, gpus), _announce)
        return
    if (ray_address, replicas, cpus, gpus) != ("local", "1", 1.0, 0.0):
        raise InputError("--ray-address, --replicas, --cpus and --gpus go with --ray.")
    _log_to_stderr(access=not no_access_log)
    lost = run(sources, settings, labels=labels, on_ready=_announce)
    if lost:
        err().print(f"{lost} accepted requests were not answered within {drain:g} s.")
        raise typer.Exit(1)


def _announce(addresses: dict[str, str]) -> None:
    for protocol, address in addresses.items():
        err().print(f"ready: {protocol:4} {address}", markup=False, soft_wrap=True)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN, "").strip() or None  # a secret made from a file ends in a newline
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the token cannot be read: {error}.") from error


def _log_to_stderr(*, access: bool) -> None:
    handler = logging.StreamHandler()
    for name in ("evovit.serve", "evovit.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    if not access:
        logging.getLogger("evovit.access").setLevel(logging.WARNING)

"""`evovit serve`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ..errors import ModelFileError
from ..storage.files import plain, printable
from ..storage.missing import no_such_file
from ..storage.names import label_of
from . import _options as shared
from ._console import err
from ._groups import grouped
from ._ray import serve_on_ray
from ._service import Limited, Listening, OnRay

__all__ = ["serve"]


@grouped
def serve(
    engines: Annotated[
        list[str],
        typer.Argument(
            help="Models: FILE, NAME=FILE or NAME:VERSION=FILE. NAME is by default made of the file's, and the versions of "
            "a name count from 1.",
            metavar="MODEL",
        ),
    ],
    *,
    listening: Listening,
    labels: shared.Labels = None,
    limited: Limited,
    on_ray: OnRay,
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
    from ..serve.settings import ModelSource, ServiceSettings

    if not on_ray.ray:  # which has to find its settings in the environment when it is imported
        require("serve", "serving")
    settings = ServiceSettings(**listening.fields(), **limited.fields())
    sources = ModelSource.parse_all(engines)
    if not on_ray.ray or on_ray.ray_address == "local":
        _check_files(engines)
    if settings.host not in ("127.0.0.1", "::1", "localhost") and settings.token is None:
        err().print(
            f"note: {settings.host} is reachable from other machines, and no token is needed (--token-file).",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if on_ray.ray:
        for source in sources:
            err().print(
                f"model: {source.name} version {source.version}, from {printable(source.path)}",
                markup=False,
                soft_wrap=True,
            )
        serve_on_ray(
            sources, settings, labels, on_ray.ray_address, on_ray.replicas, (on_ray.cpus, on_ray.gpus), _announce
        )
        return
    on_ray.check()
    log = _log_to_stderr(access=not no_access_log)
    try:
        lost = run(sources, settings, labels=labels, on_ready=lambda addresses: _announce(addresses, log.info))
        if lost:
            log.warning("%d accepted requests were not answered within %g s.", lost, settings.drain)
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

"""The part of commands that run on Ray."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..serve.settings import ModelSource, Settings

__all__ = ["serve_on_ray"]


def serve_on_ray(
    sources: list[ModelSource],
    settings: Settings,
    labels: Path | None,
    address: str,
    replicas: str,
    resources: tuple[float, float],
    on_ready: Callable[[dict[str, str]], None],
) -> None:
    """`evovit serve --ray`: the settings of the command as options of a Ray Serve application, until a signal comes."""
    from ..serve.ray.cluster import run
    from ..serve.ray.options import OF_REPLICA, RayOptions

    if settings.certificate is not None:
        raise InputError("--tls-certificate does not go with --ray; put TLS before Ray, or in its own http_options.")
    if settings.control:
        raise InputError("--allow-control does not go with --ray: it would reach one replica. Deploy again instead.")
    cpus, gpus = resources
    options = RayOptions(
        models=tuple(f"{source.name}:{source.version}={source.path.absolute()}" for source in sources),
        labels=None if labels is None else str(labels.absolute()),
        threads=settings.threads,
        num_cpus=cpus,
        num_gpus=gpus,
        **{name: getattr(settings, name) for name in OF_REPLICA},
        **read_replicas(replicas),
    )
    run(options, host=settings.host, port=settings.port, address=address, token=settings.token, on_ready=on_ready)


def read_replicas(text: str) -> dict[str, Any]:
    """``3`` or ``1-4`` as options.

    Raises:
        InputError: Neither.
    """
    found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if found is None:
        raise InputError(f"--replicas is {text!r}; give a number, or MIN-MAX such as 1-4.")
    if found[2] is None:
        return {"num_replicas": int(found[1])}
    return {"min_replicas": int(found[1]), "max_replicas": int(found[2])}

"""The Ray Serve application: replicas that each hold the service of one machine, with its batcher, behind Ray's HTTP."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from ..machine import extras
from ..serve.http import build_app
from ..serve.logs import PlainFormatter
from ..serve.models import Opener, open_engine
from ..serve.service import Service
from .options import RayOptions

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["DEPLOYMENT", "Replica", "application", "require"]

DEPLOYMENT = "evovit"  # name of the one deployment of the application
RETRY_AFTER_S = 1.0  # as the service itself says
log = logging.getLogger("evovit.serve")


def require() -> None:
    """Raise EngineError unless the libraries of the extra are there; gRPC is not among them."""
    extras.require("ray", "running on Ray", "prometheus_client", "starlette", "ray", "ray.data", "ray.serve")


class Replica:
    """One copy of the service, in a separate process on some node; Ray makes it, asks after its health, and ends it.

    Args:
        options: Models and limits.
        token: Bearer token; the file of the options where None.
        opener: Opens engines; for tests.

    Raises:
        EvoVitError: A model that cannot be served.
    """

    def __init__(self, options: RayOptions, token: str | None = None, opener: Opener = open_engine) -> None:
        _log_to_stderr()
        labels = None if options.labels is None else Path(options.labels)
        settings = options.settings(options.token() if token is None else token)
        self._drain = options.drain
        self.service = Service(options.sources(), settings, labels=labels, opener=opener)
        self.service.load()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Ray calls this after the constructor: the routes of ``evovit serve``."""
        return build_app(self.service)

    def check_health(self) -> None:
        """Ray calls this at intervals, and replaces a replica that fails three times.

        Raises:
            EngineError: A model takes no more requests, since so many of its runs hang.
        """
        hung = [model.name for model in self.service.models.loaded() if not model.ready]
        if hung:
            raise EngineError(f"runs of {', '.join(hung)} hang; the replica has to be replaced.")

    async def __del__(self) -> None:
        """Ray calls this when a replica ends in order, its requests being answered."""
        service = getattr(self, "service", None)  # the constructor may have failed
        if service is not None and not service.stopping:
            await service.close(self._drain)


def application(options: RayOptions, *, token: str | None = None, opener: Opener = open_engine) -> Any:
    """Return a ``ray.serve.Application`` for ``serve.run`` or a config file.

    Args:
        options: Models, limits, replicas.
        token: Bearer token, if it does not come from a file.
        opener: Opens engines; for tests.

    Raises:
        EngineError: Ray is not installed.
    """
    require()
    from ray import serve
    from ray.serve.config import BackpressureConfig

    replicas: dict[str, Any]
    if options.autoscaled:
        replicas = {
            "autoscaling_config": {
                "min_replicas": options.min_replicas,
                "max_replicas": options.max_replicas,
                "target_ongoing_requests": options.target_ongoing_requests or max(1, options.batch // 2),
            }
        }
    else:
        replicas = {"num_replicas": options.num_replicas or 1}
    deployed = serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        max_ongoing_requests=options.ongoing,
        max_queued_requests=options.max_queued_requests or options.max_queue,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        graceful_shutdown_timeout_s=options.drain,
        health_check_period_s=options.health_check_period_s,
        health_check_timeout_s=options.health_check_timeout_s,
        **replicas,
    )
    return deployed(serve.ingress()(Replica)).bind(options, token, opener)  # type: ignore[attr-defined]


def _log_to_stderr() -> None:
    """Ray keeps what a replica writes to stderr, in a separate file and for the driver."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(PlainFormatter())
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False

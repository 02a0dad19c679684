"""What HTTP and gRPC share: the settings, the models, the metrics, and whether the service is ready."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path

from .capacity import Capacity
from .decoding import DaemonThreads, PixelBudget
from .metrics import Metrics
from .models import Opener, open_engine
from .rejections import Rejected
from .repository import ModelRepository
from .settings import ModelSource, ServiceSettings

__all__ = ["GRACE", "STEP", "Service"]

GRACE = 2.0  # seconds for what is on its way when the service stops
STEP = 0.05  # seconds between looks at what is left then


class Service:
    """The state of one running service.

    Args:
        sources: Models to serve.
        settings: How.
        labels: File of class names.
        opener: Opens engines; for tests.

    Attributes:
        started: Every model was loaded once.
        stopping: SIGTERM came: what is accepted ends, and nothing new is taken.
        threads: For decoding images.
        pixels: Of all images that are being decoded.
        readers: For reading large requests.
        capacity: Places and memory of requests.
    """

    def __init__(
        self,
        sources: list[ModelSource],
        settings: ServiceSettings,
        *,
        labels: Path | None = None,
        opener: Opener = open_engine,
    ) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.models = ModelRepository(sources, settings, self.metrics, labels=labels, opener=opener)
        self.started = self.stopping = False
        self.threads = DaemonThreads(4, "evovit-decode")
        self.pixels = PixelBudget(settings.max_pixels)
        self.readers = DaemonThreads(2, "evovit-read")
        self._loaders = DaemonThreads(1, "evovit-load")
        self.capacity = Capacity(settings.max_concurrent, settings.body_bytes)

    @property
    def ready(self) -> bool:
        """Whether requests are taken and every model answers."""
        return self.started and not self.stopping and self.models.ready

    def load(self) -> None:
        """Open and warm every model; the service is ready after that. See :meth:`ModelRepository.load_all`."""
        self.models.load_all()
        self.started = True

    async def load_in_thread(self, load: Callable[..., None], *names: str) -> None:
        """Run what loads or unloads, one at a time; it does not keep the process alive."""
        await asyncio.get_running_loop().run_in_executor(self._loaders, load, *names)

    def allows(self, authorization: str | None) -> bool:
        """Return whether a request with this ``Authorization`` header may pass."""
        if self.settings.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        same = hmac.compare_digest(given.encode("utf-8", "replace"), self.settings.token.encode())
        return same and scheme.lower() == "bearer"

    async def close(self, timeout: float) -> int:
        """Answer what was accepted, free the models; returns how many requests were not answered in time."""
        self.stopping = True
        lost = await asyncio.to_thread(self.models.close, timeout)
        stopped = Rejected(503, "the service is stopping.")
        lost += sum(part.end(stopped) for part in (self.pixels, self.threads, self.readers))
        self._loaders.end(stopped)
        return lost

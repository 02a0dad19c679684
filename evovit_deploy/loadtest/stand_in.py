"""A service around an engine that only waits, as a separate process: what it costs is the service, and its load is known.

``python -m evovit_deploy.loadtest.stand_in JSON`` runs ``evovit serve``'s service, with a :class:`FakeEngine` in place of a
model file. The engine answers the number that each image carries, so an answer that reaches the wrong caller is seen.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.fake import FakeEngine

__all__ = ["StandIn", "generations", "main", "numbered", "numbers", "stand_in_engine"]

NAME = "stand_in"
MAX_NUMBER = 1 << 24  # exact in float32, and three bytes of an image


@dataclass(frozen=True)
class StandIn:
    """What the engine does, and the settings of the service.

    Attributes:
        latency: Seconds of a run, whatever its batch.
        size: S of its uint8 images, pixels.
        fail_every: It raises on every image whose number leaves 1 when divided by it (the warm-up's is 0); 0 never.
        hang_at: Numbers on which it hangs for ever.
        settings: Of :class:`~evovit_deploy.serve.settings.ServiceSettings`, where they are not the defaults.
        access_log: One line on stderr for each request.
    """

    latency: float = 0.0
    size: int = 8
    fail_every: int = 0
    hang_at: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    access_log: bool = False

    @property
    def capacity(self) -> float:
        """Images per second that it can take: full batches, one after another."""
        return float(self.settings["max_batch"]) / self.latency

    @property
    def command(self) -> list[str]:
        """How to start it."""
        return [sys.executable, "-m", "evovit_deploy.loadtest.stand_in", json.dumps(asdict(self))]


def stand_in_engine(about: StandIn, generation: int = 0) -> FakeEngine:
    """Return the engine itself: logits are [number of the image, generation]."""

    def logits(images: NDArray[Any]) -> NDArray[Any]:
        found = images[:, 0, 0].astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
        if set(about.hang_at) & set(found.tolist()):
            threading.Event().wait()
        if about.fail_every and (found % about.fail_every == 1).any():
            raise RuntimeError("an image that this engine cannot take")
        return np.stack([found, np.full_like(found, generation)], 1).astype(np.float32)

    return FakeEngine(2, about.size, image_input="uint8", latency=about.latency, logits=logits)


def numbered(number: int, size: int) -> NDArray[Any]:
    """Return [1, size, size, 3] uint8 that carry a number below 2^24."""
    image = np.zeros((1, size, size, 3), np.uint8)
    image[0, 0, 0] = [number & 255, number >> 8 & 255, number >> 16]
    return image


def numbers(logits: NDArray[Any]) -> list[int]:
    """Return the numbers of the images that were answered."""
    return [int(value) for value in logits[:, 0]]


def generations(logits: NDArray[Any]) -> list[int]:
    """Return which engine answered: 0 the first, counted up with each reload."""
    return [int(value) for value in logits[:, 1]]


def main(text: str) -> int:
    """Serve until SIGTERM, like `evovit serve`; returns its exit code."""
    from ..serve.logs import BackgroundHandler
    from ..serve.server import run
    from ..serve.settings import ModelSource, ServiceSettings

    about = StandIn(**json.loads(text))
    level = logging.INFO if about.access_log else logging.WARNING
    logging.basicConfig(handlers=[BackgroundHandler(sys.stderr)], level=level)
    generation = count()
    lost = run(
        ModelSource.parse_all([f"{NAME}=none"]),
        ServiceSettings(port=0, grpc_port=0, **about.settings),
        on_ready=_ready,
        opener=lambda source, settings: stand_in_engine(about, next(generation)),
    )
    return 1 if lost else 0


def _ready(addresses: dict[str, str]) -> None:
    for protocol, address in addresses.items():
        sys.stderr.write(f"ready: {protocol} {address}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

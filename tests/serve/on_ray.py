"""What workers of Ray import for a test, and no more than that: a process each time that one starts."""

from __future__ import annotations

import os

from evovit_deploy.cluster.predicting import Job
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.serve.settings import ModelSource, ServiceSettings

from .engines import NumberEngine


def slow(source: ModelSource, settings: ServiceSettings) -> Engine:
    return NumberEngine(latency=iter(lambda: 0.2, None))


class Deadly(Job):
    """A model that takes its process down, as a damaged image may do to a decoder."""

    def engine(self) -> Engine:
        return FakeEngine(2, 4, image_input="uint8", fail=lambda: os._exit(1))

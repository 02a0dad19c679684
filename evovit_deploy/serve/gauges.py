"""Gauges of the models that are served now, read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .logs import dropped
from .models import ServedModel

__all__ = ["Gauges"]


class Gauges:
    """A collector of what is true now rather than counted.

    Args:
        models: Returns the models that are served.
    """

    def __init__(self, models: Callable[[], list[ServedModel]]) -> None:
        self._models = models

    def collect(self) -> Iterable[Any]:
        """Return the metric families as they are at this moment."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        queue = GaugeMetricFamily("evovit_queue_images", "Images that wait now.", labels=("model", "version"))
        ready = GaugeMetricFamily("evovit_model_ready", "Whether a model takes requests.", labels=("model", "version"))
        for model in self._models():
            queue.add_metric((model.name, model.version), model.batcher.queued)
            ready.add_metric((model.name, model.version), float(model.ready))
        lines = CounterMetricFamily("evovit_log_lines_dropped", "Lines of the log that nobody read.", value=dropped())
        return queue, ready, lines

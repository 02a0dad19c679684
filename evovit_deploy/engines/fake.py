"""A fake engine for users' own tests: the same interface and checks, no model, no GPU, any latency wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..manifest.spec import ModelSpec
from ..recipes import Transform
from .base import Engine

__all__ = ["FakeEngine"]


class FakeEngine(Engine):
    """An engine whose logits are a function of the images and whose latency is given.

    Args:
        num_classes: Classes.
        image_size: S.
        image_input: ``float32`` or ``uint8``.
        latency: Seconds that each run takes: a number, or an iterable of numbers that is used up in turn; 0 after its end.
        logits: [B, ...] images -> [B, classes] float32. By default class (sum of the image modulo classes) wins, so equal
            images get equal answers and an answer tells which image it belongs to.
        fail: Called before each run; raise in it to test how a failure is handled.
        max_batch: Largest batch in one run.
        sleep: Called with the latency; replace it to run on a clock of your own.

    Attributes:
        batches: Sizes of the batches that were run, in order.
    """

    backend = "fake"
    device = "none"

    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 8,
        *,
        image_input: str = "float32",
        latency: float | Iterable[float] = 0.0,
        logits: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        fail: Callable[[], None] | None = None,
        max_batch: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.spec = ModelSpec(
            "fake",
            image_size,
            image_input,
            num_classes,
            ("logits",),
            max_batch=max_batch,
            precision="fp32",
            transform=Transform(),
        )
        self.batches: list[int] = []
        self._closed = False
        self._latency: Iterator[float] | float = latency if isinstance(latency, (int, float)) else iter(latency)
        self._logits, self._fail, self._sleep = logits or self._default_logits, fail, sleep

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See :meth:`Engine.run`."""
        if self._closed:
            raise EngineError(f"{self.spec.name} is closed.")
        if self._fail is not None:
            self._fail()
        seconds = self._latency if isinstance(self._latency, (int, float)) else next(self._latency, 0.0)
        if seconds:
            self._sleep(seconds)
        self.batches.append(len(images))
        return {"logits": self._logits(images)}

    def close(self) -> None:
        """Answer no more calls, as any engine."""
        super().close()
        self._closed = True

    def _default_logits(self, images: NDArray[Any]) -> NDArray[Any]:
        winners = np.floor(images.reshape(len(images), -1).sum(1, dtype=np.float64)).astype(np.int64)
        logits = np.zeros((len(images), self.spec.num_classes), np.float32)
        logits[np.arange(len(images)), winners % self.spec.num_classes] = 1.0
        return logits

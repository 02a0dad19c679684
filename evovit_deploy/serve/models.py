"""A model in service: an engine, its batcher, and what clients may know about it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import cast

import numpy as np

from ..engines.base import Engine
from ..engines.batching.batcher import Batcher
from ..engines.batching.requests import Array, BatchRecord, Outputs, TransformChanged
from ..errors import EngineError
from ..recipes import Transform
from ..storage.files import printable
from .json_body import MAX_DOCUMENT
from .metrics import Metrics, Statistics
from .settings import ModelSource, ServiceSettings
from .tensors import DATATYPES, TensorInfo, image_tensor

__all__ = ["Opener", "ServedModel", "open_engine"]

TEXT = {"uint8": 8, "float32": 32}  # most characters of a number in JSON, spaces and brackets included
Opener = Callable[[ModelSource, ServiceSettings], Engine]


def open_engine(source: ModelSource, settings: ServiceSettings) -> Engine:
    """Open the file of a model as the settings say."""
    return Engine.open(source.path, provider=settings.provider, threads=settings.threads)


class ServedModel:
    """One version of a model, warm.

    Args:
        source: Its name, version and file.
        engine: The engine; it belongs to this object from now on.
        settings: Limits of the batcher.
        metrics: Where runs are counted.
        labels: Name of each class, or None.

    Attributes:
        max_images: Images that a request may hold.
        max_body: Bytes of a request for inference, decompressed: as many images in JSON, or what the service takes at all.

    Raises:
        EvoVitError: The engine does not run, or gives what the protocol cannot carry.
    """

    def __init__(
        self, source: ModelSource, engine: Engine, settings: ServiceSettings, metrics: Metrics, labels: list[str] | None
    ) -> None:
        self.source, self.labels = source, labels
        self.name, self.version = source.name, source.version
        self.input = image_tensor(engine.spec)
        limit = engine.spec.batch or engine.spec.max_batch
        self.batcher = Batcher(
            engine,
            max_batch=settings.max_batch
            if limit is None or settings.max_batch is None
            else min(settings.max_batch, limit),
            fixed_batch=settings.fixed_batch,
            max_delay_ms=settings.max_delay_ms,
            max_queue=settings.max_queue,
            workers=settings.workers,
            run_timeout=settings.run_timeout,
            on_batch=self._count,
        )
        self.max_images, self._timeout = settings.max_queue, settings.timeout
        values = self.max_images * math.prod(self.input.shape)
        self.max_body = min(settings.max_bytes, MAX_DOCUMENT + values * TEXT[engine.spec.input])
        self.statistics = Statistics()
        try:
            self.outputs = warm(engine, self.batcher.max_batch)
        except BaseException:
            self.batcher.close()
            raise
        labels_ = (self.name, self.version)
        self._images, self._failures = metrics.images.labels(*labels_), metrics.failures.labels(*labels_)
        self._batches = metrics.batches.labels(*labels_)
        self._queue, self._compute = (metrics.phases.labels(*labels_, phase) for phase in ("queue", "compute"))

    @property
    def engine(self) -> Engine:
        """The engine in use."""
        return cast("Engine", self.batcher.engine)  # it was given none other

    @property
    def summary(self) -> str:
        """A line that says what is served under which name."""
        spec, engine = self.engine.spec, self.engine
        given = f"{spec.num_classes} classes" if spec.num_classes else f"outputs {', '.join(spec.outputs)}"
        return (
            f"{self.name} version {self.version}, {spec.image_size} px {spec.input}, {given}, on "
            f"{engine.backend} {engine.device}, from {printable(self.source.path)}"
        )

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.batcher.healthy

    async def infer(self, images: Array, timeout: float | None, prepared: Transform | None = None) -> Outputs:
        """Put images into the batcher's queue and return what comes of them.

        Args:
            images: As the model takes them.
            timeout: Seconds that the client grants; counts where it is shorter than the service's.
            prepared: Transform that they went through, where the service did that. For this and errors see
                :meth:`Batcher.submit`.
        """
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        started = time.monotonic()
        failed: bool | None = True
        try:
            outputs = await asyncio.wrap_future(self.batcher.submit(images, timeout=limit, prepared=prepared))
            failed = False
            return outputs
        except TransformChanged:  # it comes again
            failed = None
            raise
        finally:
            if failed is not None:
                self.statistics.request(time.monotonic() - started, failed=failed)

    def swap(self, engine: Engine) -> None:
        """Put a new engine in place, warm, and close the old one when it is idle; no request is lost.

        Raises:
            InputError: It takes other images or gives other outputs.
            EvoVitError: It does not run.
        """
        outputs = warm(engine, self.batcher.max_batch)
        if outputs != self.outputs:
            raise EngineError("the outputs of the new file are not those of the old one; serve it as another version.")
        old = self.engine
        self.batcher.swap(engine)
        old.close()

    def close(self, timeout: float | None = None) -> int:
        """Answer what was accepted, within ``timeout`` seconds, then free the engine; returns what was not answered."""
        lost = self.batcher.close(timeout=timeout)
        if not lost:  # a run that hangs may still be in the engine
            self.engine.close()
        return lost

    def _count(self, record: BatchRecord) -> None:
        self.statistics.batch(record)
        if record.failed:
            self._failures.inc()
            return
        self._images.inc(record.images)
        self._batches.observe(record.images)
        self._compute.observe(record.seconds)
        for seconds in record.waited:
            self._queue.observe(seconds)


def warm(engine: Engine, max_batch: int) -> tuple[TensorInfo, ...]:
    """Run the smallest and the largest batch once; returns the outputs as they came.

    Raises:
        EngineError: An output of a type that the protocol does not have.
    """
    for size in dict.fromkeys((max_batch, 1)):
        outputs = engine(np.zeros((size, *engine.spec.image_shape), engine.spec.input))
    for name, value in outputs.items():
        if value.dtype.name not in DATATYPES:
            raise EngineError(f"output {name} of {engine.spec.name} is {value.dtype}, which cannot be served.")
    return tuple(TensorInfo(name, DATATYPES[value.dtype.name], value.shape[1:]) for name, value in outputs.items())

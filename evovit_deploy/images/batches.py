"""Images decoded and transformed in a thread pool with bounded read-ahead, a batch at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..recipes import Transform
from .decode import load_image
from .transform import preprocess

if TYPE_CHECKING:
    from ..manifest.spec import ModelSpec

__all__ = ["Failure", "batches"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    path: Path
    reason: str


def batches(
    paths: Sequence[str | Path],
    spec: ModelSpec,
    size: int = 32,
    workers: int | None = None,
    failures: list[Failure] | None = None,
) -> Iterator[tuple[list[Path], Array]]:
    """Decode and transform images in threads, in order, a batch at a time.

    At most ``size + 2 * workers`` images are in memory beside the batch that was handed out, however many there are.

    Args:
        paths: Image files.
        spec: Of the engine: image size, input type and transform; the ImageNet transform where it has none.
        size: Images per batch; the last one may be smaller.
        workers: Threads; the CPU count, at most 8, when None.
        failures: Images that cannot be read are appended here and left out of the batches; the rest goes on. Without
            it the first one raises.

    Yields:
        (paths, images): images [b, 3, S, S] float32 or [b, S, S, 3] uint8 with 1 <= b <= ``size``, one a path.

    Raises:
        InputError: An unreadable image, if ``failures`` is None; or a ``size`` or ``workers`` below 1.
    """
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    if size < 1 or workers < 1:
        raise InputError(f"batch size {size} and workers {workers} must be at least 1.")
    return _batches([Path(path) for path in paths], spec, size, workers, failures)


def _batches(
    paths: list[Path], spec: ModelSpec, size: int, workers: int, failures: list[Failure] | None
) -> Iterator[tuple[list[Path], Array]]:
    transform = spec.transform or Transform()

    def read(path: Path) -> Array:
        return preprocess(load_image(path), transform, spec.image_size, spec.input)

    rest = iter(paths)
    pending: deque[tuple[Path, Future[Array]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="evovit-decode")
    try:
        names: list[Path] = []
        images: list[Array] = []
        while True:
            while len(pending) + len(images) < size + 2 * workers and (path := next(rest, None)) is not None:
                pending.append((path, pool.submit(read, path)))
            if not pending:
                break
            path, future = pending.popleft()
            try:
                image = future.result()
            except InputError as error:
                if failures is None:
                    raise
                failures.append(Failure(path, str(error).removeprefix(f"{path}: ")))
                continue
            names.append(path)
            images.append(image)
            if len(images) == size:
                ready, names, stack, images = names, [], np.stack(images), []
                yield ready, stack
        if images:
            yield names, np.stack(images)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

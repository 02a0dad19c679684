"""Images from disk in worker processes, in order, with bounded read-ahead.

A separate process decodes while the model computes, and a decoder that crashes on a hostile file does not take the
evaluation with it. Workers are spawned, not forked: a fork of a process in which torch runs threads may hang.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import EvoVitError, InputError
from ..images.decode import load_image
from ..images.transform import preprocess
from ..recipes import Transform
from ..storage.files import printable

__all__ = ["Decoded", "View", "check_not_starting", "decode", "default_workers"]

Array = NDArray[Any]
CHUNK = 8
# Below this many images a worker takes longer to start than to decode them.
FEW_IMAGES = 64
_UNGUARDED = (
    "every worker process reads the script that starts it from its first line, so the script must be a file, and what it does "
    'must stand under `if __name__ == "__main__":`. Or decode in one process: workers=0'
)


@dataclass(frozen=True)
class View:
    """Geometry of a transform: what is cut out of an image, before any normalisation."""

    size: int
    resize_ratio: float
    interpolation: str

    @classmethod
    def of(cls, transform: Transform, size: int) -> View:
        """Return the geometry of ``transform`` for images of ``size`` pixels."""
        return cls(size, transform.resize_ratio, transform.interpolation)

    def cut(self, image: Any) -> Array:
        """RGB image -> [S, S, 3] uint8."""
        transform = Transform(self.resize_ratio, self.interpolation)  # type: ignore[arg-type]
        return preprocess(image, transform, self.size, "uint8")


Decoded = tuple[Array, ...]  # one [S, S, 3] uint8 a view


def default_workers(images: int) -> int:
    """Return processes to decode with: the CPU count, at most 8; none for a handful of images."""
    return 0 if images < FEW_IMAGES else min(8, os.cpu_count() or 1)


def decode(paths: Sequence[Path], views: Sequence[View], workers: int) -> Iterator[Decoded | str]:
    """Decode images in order; what comes out for an unreadable one is the reason.

    At most ``8 * (2 * workers + 1)`` images are held, however many there are.

    Args:
        paths: Image files.
        views: What to cut out of each.
        workers: Processes; 0 decodes in this one.

    Raises:
        EvoVitError: A worker died, say of too little memory; the message names the images it may have died of.
    """
    if workers < 0:
        raise InputError(f"{workers} workers; give a number from 0.")
    check_not_starting()
    views = tuple(views)
    chunks = (tuple(paths[start : start + CHUNK]) for start in range(0, len(paths), CHUNK))
    if not workers:
        for chunk in chunks:
            for path in chunk:
                yield _read(path, views)
        return
    pending: deque[tuple[tuple[Path, ...], Future[list[Decoded | str]]]] = deque()
    spawning = get_context("spawn")
    began = spawning.Event()
    pool = ProcessPoolExecutor(workers, mp_context=spawning, initializer=_start, initargs=(began,))
    try:
        while True:
            while len(pending) < 2 * workers and (following := next(chunks, None)) is not None:
                with _uninterrupted():  # a worker starts here, and must not take Ctrl-C for its own
                    pending.append((following, pool.submit(_read_all, following, views)))
            if not pending:
                return
            images = pending[0][1].result()
            pending.popleft()
            yield from images
    except BrokenProcessPool as error:
        if not began.is_set():
            raise EvoVitError(f"the decoding workers ended before they began: {_UNGUARDED}.") from error
        suspects = [printable(path) for names, _ in pending for path in names]
        raise EvoVitError(
            f"a decoding worker died, of too little memory or of one of these images: {', '.join(suspects)}. "
            "Take the image away, or give fewer --workers (0 decodes in one process)."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(path: Path, views: tuple[View, ...]) -> Decoded | str:
    try:
        image = load_image(path)
        return tuple(view.cut(image) for view in views)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")


def _read_all(paths: tuple[Path, ...], views: tuple[View, ...]) -> list[Decoded | str]:
    """Runs in a worker."""
    return [_read(path, views) for path in paths]


def check_not_starting() -> None:
    """Refuse to run in a worker process that is still reading the script of its parent.

    Raises:
        EvoVitError: The script does its work without a guard, and so again in the worker.
    """
    if getattr(current_process(), "_inheriting", False):
        raise EvoVitError(f"this is a decoding worker, and not yet ready to work: {_UNGUARDED}.")


def _start(began: Event) -> None:
    """Runs first in a worker: it leaves Ctrl-C to its parent, and ends when the parent is gone, however that ended."""
    began.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C, also in processes that are started meanwhile (they inherit the mask); it arrives afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

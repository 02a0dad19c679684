"""What it costs to have a model ready: load time, first call, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .subject import Facts, Opened
from .turns import Clock

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["open_measured", "peak_memory"]

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def open_measured(
    open_engine: Callable[[], Engine], batches: tuple[int, ...], *, clock: Clock = time.perf_counter
) -> Opened:
    """Open an engine, and call it at the smallest and at the largest batch size of a run.

    Args:
        open_engine: Opens it.
        batches: Batch sizes of the run; sizes that the engine does not take are clipped to those it does.
        clock: Seconds.

    Returns:
        The open engine with its ``load_ms``, ``first_ms`` and ``memory_mib``.
    """
    from ..engines.pytorch import graph_skips

    with peak_memory() as memory:
        skipped, start = graph_skips(), clock()
        engine = open_engine()
        loaded = clock()
        try:
            sizes = [_clipped(engine, size) for size in (min(batches), max(batches))]
            images = np.zeros((sizes[1], *engine.spec.image_shape), engine.spec.input)
            called = clock()
            engine(images[: sizes[0]])
            first = clock() - called
            if sizes[1] != sizes[0]:
                engine(images)
            if graph_skips() > skipped:  # what was compiled in these calls
                engine.cuda_graphs = False
        except BaseException:
            engine.close()
            raise
    device = engine.device if engine.device.startswith("cuda") else "cpu"
    return Opened.of(engine, Facts(1000 * (loaded - start), 1000 * first, memory(device)))


def _clipped(engine: Engine, size: int) -> int:
    largest = engine.spec.batch or engine.spec.max_batch or size
    return engine.spec.batch or min(max(size, getattr(engine, "min_batch", 1)), largest)


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[str], float | None]]:
    """Yield the memory that the block took at its peak: call what is yielded with the device afterwards; MiB, or None if
    unknown.

    On a CPU the highest resident memory of the process during the block, above that before it (Linux); on a GPU the memory
    of the device that is taken after it, which PyTorch's and TensorRT's pools do not give back.
    """
    _give_back()
    with contextlib.suppress(OSError):
        RESET.write_text("5")  # the high-water mark starts again from what is resident now
    resident, free = _status("VmRSS"), _free_gpu()

    def taken(device: str) -> float | None:
        if device == "cpu":
            return None if resident is None or highest is None else max(0.0, highest - resident)
        after = _free_gpu()
        return None if free is None or after is None else max(0.0, free - after)

    highest: float | None = None
    yield taken
    highest = _status("VmHWM")


def _give_back() -> None:
    """Return freed memory to the system (glibc): else a model loaded into it would seem to take none."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> float | None:
    """A line of the process's status, MiB."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _free_gpu() -> float | None:
    """Free memory of the current GPU, MiB; None without one."""
    import sys

    torch: Any = sys.modules.get("torch")  # not loaded only to learn that there is no GPU
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.mem_get_info()[0]) / 2**20

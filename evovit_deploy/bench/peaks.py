"""What this machine reaches on the spot: large matrix products, and large copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from .report import Peaks
from .turns import Clock

__all__ = ["measure_peaks"]

SECONDS = 0.3
MIN_CALLS = 3
PRODUCTS = {"cpu": (512, 1024), "cuda": (4096, 8192)}
COPY_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}


def measure_peaks(
    device: str,
    precision: str,
    threads: int | None = None,
    *,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter,
    products: tuple[int, ...] | None = None,
    copy_bytes: int | None = None,
) -> Peaks:
    """Return the best of several square matrix products and of several copies, in PyTorch.

    Not the data sheet's figure: what a library reaches here, with the clocks and the cooling there are. On a CPU without
    instructions for half precision PyTorch's product in FP16 or BF16 is many times slower than in FP32, and runtimes compute
    such models in FP32; so the best of the two counts there.

    Args:
        device: ``cpu`` or ``cuda:N``.
        precision: ``fp32``, ``fp16`` or ``bf16`` of the model.
        threads: CPU threads, process-wide in PyTorch; None leaves them as they are.
        seconds: For each size of product and for the copy, at least.
        clock: Seconds.
        products: Rows and columns of the matrices; the best size counts.
        copy_bytes: Read, and as many written.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    kind = device.partition(":")[0]
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    kinds = dict.fromkeys((half, torch.float32)) if kind == "cpu" else (half,)
    sizes, count = products or PRODUCTS[kind], copy_bytes or COPY_BYTES[kind]
    cuda: Any = torch.cuda
    wait: Callable[[], Any] = cuda.synchronize if kind == "cuda" else lambda: None
    with torch.inference_mode():
        rates = []
        for dtype, size in product(kinds, sizes):
            a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
            rates.append(size**3 / _best(partial(torch.mm, a, b, out=torch.empty_like(a)), wait, seconds, clock))
        source = torch.zeros(count, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copied = _best(lambda: target.copy_(source), wait, seconds, clock)
    return Peaks(device, precision, max(rates), 2 * count / copied)


def _best(work: Callable[[], Any], wait: Callable[[], Any], seconds: float, clock: Clock) -> float:
    """Seconds of the fastest call."""
    best, spent, calls = float("inf"), 0.0, 0
    while spent < seconds or calls < MIN_CALLS:
        wait()
        start = clock()
        work()
        wait()
        found = clock() - start
        best, spent, calls = min(best, found), spent + found, calls + 1
    return best

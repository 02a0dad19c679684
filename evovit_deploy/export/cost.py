"""What islands cost, as far as a CPU can tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["cost_on_cpu"]

RUNS = 9


def cost_on_cpu(
    plain: onnx.ModelProto, mended: onnx.ModelProto, images: NDArray[Any], batch: int | None
) -> dict[str, float]:
    """Time two graphs on ONNX Runtime's CPU provider, in turns -> ``batch``, and the medians ``ms`` and ``ms_without``.

    Args:
        plain: Without islands.
        mended: With them.
        images: [n, ...] as both take them.
        batch: Static batch, or None for 1.
    """
    from ..engines.ort.session import session

    part = images[np.arange(batch or 1) % len(images)]
    runners = [session(graph.SerializeToString(), "cpu", None) for graph in (mended, plain)]
    taken: list[list[float]] = [[], []]
    for number in range(RUNS + 1):
        for runner, times in zip(runners, taken):
            began = time.perf_counter()
            runner.run(None, {"images": part})
            if number:  # the first warms up
                times.append(1000 * (time.perf_counter() - began))
    ms, without = (float(np.median(times)) for times in taken)
    return {"batch": float(len(part)), "ms": round(ms, 3), "ms_without": round(without, 3)}

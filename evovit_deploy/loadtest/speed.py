"""What the service costs: against the engine called directly, in turns, on the same machine within the same seconds.

The service is a separate process; the engine that it is compared with, and the clients, live in this one. Only one of the three
is at work at a time, and every round goes the other way round than the last.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engines.base import Engine
from .part import Part, Tell
from .process import serve_command, serving
from .results import ServedSubject, SpeedReport, SpeedSettings, surroundings
from .stand_in import NAME, StandIn, stand_in_engine

__all__ = ["SpeedSettings", "measure_speed"]


def measure_speed(
    model: Path | None, settings: SpeedSettings, *, command: str = "", tell: Tell = lambda share, text: None
) -> SpeedReport:
    """Measure the service around a stand-in that waits, one that answers at once, and a model.

    Args:
        model: Model file, or None for the stand-ins only.
        settings: How.
        command: For the record.
        tell: Called between turns with the share done and what is going on.

    Raises:
        EvoVitError: The model cannot be opened, or the service not started.
    """
    before = surroundings(settings.threads)
    parts = 5 if model else 3
    with ExitStack() as stack:
        waits = StandIn(settings.waits_ms / 1000, settings.image_size, settings={"max_batch": settings.max_batch})
        jobs: list[tuple[str, str, Engine, list[str]]] = [
            (f"waits {settings.waits_ms:g} ms", NAME, stand_in_engine(waits), waits.command)
        ]
        if model is not None:
            opened = Engine.open(model, provider=settings.provider, threads=settings.threads)
            engine = stack.enter_context(opened)
            options: list[object] = ["--provider", settings.provider, "--max-batch", settings.max_batch]
            options += ["--no-access-log", *(("--threads", settings.threads) if settings.threads else ())]
            jobs.append((engine.spec.name, "model", engine, serve_command(model, "model", *options)))
        subjects, overhead, throughput = [], [], []
        for number, (label, name, engine, words) in enumerate(jobs):
            with serving(words) as served:
                part = Part(label, name, engine, served, settings, tell, 2 * number / parts, 2 / parts)
                found = _run(part.measure())
            subjects.append(ServedSubject(label, engine.backend, engine.device, engine.spec.image_shape, engine.spec.input,
                                    settings.max_batch))  # fmt: skip
            overhead += found[0]
            throughput += found[1]
        at_once = StandIn(0.0, settings.image_size, settings={"max_batch": settings.clients})
        with serving(at_once.command) as served:
            part = Part("at once", NAME, stand_in_engine(at_once), served, settings, tell, 1 - 1 / parts, 1 / parts)
            ceiling = _run(part.ceiling())
    tell(1.0, "done")
    before["load_average_after"] = surroundings(settings.threads)["load_average"]
    return SpeedReport(tuple(subjects), tuple(overhead), tuple(throughput), ceiling, asdict(settings), before, command)


def _run(main: Any) -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)

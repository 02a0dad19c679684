"""One job in a process of its own: ``python -m evovit_deploy.gpucheck.worker JSON`` writes a line of JSON for each result."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import EvoVitError
from .jobs import CheckJob

__all__ = ["main"]


def main(text: str) -> int:
    """Do the job; returns the exit code of the process, 0 also where checks fail."""
    job = CheckJob(**json.loads(text))
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not a result

    def tell(**result: Any) -> None:
        lines.write(json.dumps(result) + "\n")
        lines.flush()

    threading.Thread(target=_end_with_parent, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="evovit-") as folder:
        (_check if job.what == "check" else _measure)(job, Path(folder), tell)
    return 0


def _end_with_parent() -> None:
    """End when the other end of stdin is gone, however that happened."""
    os.read(0, 1)
    os._exit(1)


def _check(job: CheckJob, folder: Path, tell: Any) -> None:
    from .checks import CHECKS, NotHere, trial

    started = time.monotonic()
    try:
        with trial(job, folder) as found:
            tell(check="open", status="ok", value=f"in {time.monotonic() - started:.1f} s, with what had to be built")
            for name, check in CHECKS.items():
                started = time.monotonic()
                try:
                    status, value = "ok", check(found)
                except NotHere as why:
                    status, value = "skipped", str(why)
                except Exception as error:
                    status, value = "failed", _said(error)
                tell(check=name, status=status, value=value, seconds=round(time.monotonic() - started, 2))
    except Exception as error:
        tell(check="open", status="failed", value=_said(error), seconds=round(time.monotonic() - started, 2))


def _measure(job: CheckJob, folder: Path, tell: Any) -> None:
    from ..bench.runs import BenchOptions
    from ..bench.session import run

    options = BenchOptions(
        model=job.model,
        random_weights=True,
        backend=job.backend,
        provider=job.device,
        precision=job.precision,
        settings={"batches": job.batches, "min_seconds": job.seconds},
        quick=True,
        images="synthetic",
        command="evovit gpu-check",
    )
    [asked] = options.runs()
    try:
        tell(report=run(dataclasses.replace(asked, suite="gpu-check")).to_dict())
    except Exception as error:
        tell(check="measured", status="failed", value=_said(error))


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, EvoVitError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

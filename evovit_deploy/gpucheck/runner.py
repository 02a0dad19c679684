"""Runs jobs one after another within a time limit, each in a process, and gathers what they say."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..bench.answers import verdict
from ..bench.quantities import device_speedup
from ..bench.reading import parse
from ..bench.report import BenchReport
from ..engines.registry import for_checkpoints
from ..errors import EngineError
from ..machine.facts import environment, gpus
from ..machine.probing import probe_imports, with_this_package
from .jobs import CheckJob, CheckOptions, jobs

__all__ = ["SCHEMA", "CheckOutcome", "CheckResult", "check", "run_job"]

SCHEMA = 1
PACKAGES = ("tensorrt", "tensorrt-rtx")
TAIL = 400  # characters of what a process said before it died
Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class CheckOutcome:
    """What one check of one model on one backend found; ``value`` is for people."""

    model: str
    backend: str
    check: str
    status: Literal["ok", "failed", "skipped"]
    value: str
    seconds: float | None = None


@dataclass
class CheckResult:
    """Everything that was found.

    Attributes:
        options: What was asked for.
        environment: The machine.
        skipped: Backend -> why nothing of it was looked at.
        outcomes: In the order of the jobs.
        reports: Measurements, one a backend.
        seconds: All in all.
        interrupted: Ctrl-C ended it.
        command: For the record.
    """

    options: CheckOptions
    environment: dict[str, Any]
    skipped: dict[str, str]
    command: str = ""
    outcomes: list[CheckOutcome] = field(default_factory=list)
    reports: list[BenchReport] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> list[CheckOutcome]:
        """What does not hold."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "kind": "gpu-check",
            "schema": SCHEMA,
            "command": self.command,
            "options": asdict(self.options),
            "environment": self.environment,
            "skipped": self.skipped,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "reports": [report.to_dict() for report in self.reports],
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "passed": not self.failed and not self.interrupted,
        }


def check(options: CheckOptions, *, command: str = "", tell: Tell = lambda share, text: None) -> CheckResult:
    """Look at every model on every backend that is here, until the time is over.

    Args:
        options: What, and for how long.
        command: For the record.
        tell: Called before each job with the share of the time that is over and what comes.

    Raises:
        EngineError: No GPU is found and one is asked for, or no backend works here.
    """
    started = time.monotonic()
    tell(0.0, "looking at the installed libraries")
    if options.device == "cuda" and not gpus():
        raise EngineError(
            "no NVIDIA GPU or driver was found (nvidia-smi lists none). --device cpu tries the same checks on the CPU."
        )
    here, left_out = for_checkpoints(probe_imports(), options.device, options.backends)
    todo = jobs(options, here)
    if not todo:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise EngineError(f"no backend can be checked on {options.device} here. {reasons}")
    result = CheckResult(options, environment(None, PACKAGES), left_out, command)
    limit = started + 60 * options.minutes
    try:
        for job in todo:
            left = limit - time.monotonic()
            if left <= 0:
                result.outcomes.append(_left_out(job, "the time was over"))
                continue
            tell((time.monotonic() - started) / (60 * options.minutes), job.title)
            run_job(job, left, result)
    except KeyboardInterrupt:
        result.interrupted = True
    result.seconds = time.monotonic() - started
    tell(1.0, "done")
    return result


def _left_out(job: CheckJob, why: str) -> CheckOutcome:
    return CheckOutcome(job.model, job.backend, "measured" if job.what == "measure" else "everything", "skipped", why)


def run_job(job: CheckJob, seconds: float, result: CheckResult) -> None:
    """Run one job, and enter what it said; a process that dies or hangs is a failure of what it had not said yet."""
    words = [sys.executable, "-m", "evovit_deploy.gpucheck.worker", json.dumps(asdict(job))]
    began = time.monotonic()
    ours, end = os.pipe()  # closed with this process, however that ends: so the worker knows that nobody waits for it
    process = subprocess.Popen(
        words,
        stdin=ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=with_this_package(),
        start_new_session=True,
    )
    os.close(ours)
    ended = ""
    try:
        output, said = process.communicate(timeout=seconds)
        if process.returncode:
            ended = f"the process ended with code {process.returncode}: {' '.join(said.split())[-TAIL:]}"
    except subprocess.TimeoutExpired:
        _kill(process)
        output, _ = process.communicate()
        ended = f"not done when the time was over, after {time.monotonic() - began:.0f} s"
    except BaseException:
        _kill(process)
        process.communicate()
        raise
    finally:
        os.close(end)
    _enter(job, output, result)
    if ended:
        timed_out = ended.startswith("not done")
        name = "measured" if job.what == "measure" else "the rest"
        result.outcomes.append(CheckOutcome(job.model, job.backend, name, "skipped" if timed_out else "failed", ended))


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and the compilers that it started, which would hold its pipes open."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _enter(job: CheckJob, output: str, result: CheckResult) -> None:
    for line in output.splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "report" in found:
            result.reports.append(parse(json.dumps(found["report"]), job.title))
            result.outcomes.append(
                CheckOutcome(job.model, job.backend, "measured", "ok", _measured(result.reports[-1]))
            )
        else:
            result.outcomes.append(CheckOutcome(job.model, job.backend, **found))


def _measured(report: BenchReport) -> str:
    """The speedup over the twin at each batch size, where it could be measured."""
    said = []
    for point in (point for point in report.points if point.speedup):
        assert point.speedup is not None
        known = verdict(report, point) not in ("short", "unstable")
        what = f"{point.speedup.ratio:.2f} times the twin" if known else "not measurable"
        on_device = device_speedup(report, point)
        what += "" if on_device is None else f" (on the device {on_device:.2f})"
        said.append(f"batch {point.batch}: {what}")
    return ", ".join(said) or "no comparison"

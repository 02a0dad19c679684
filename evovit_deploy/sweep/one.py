"""One candidate of a sweep: exported, measured beside the full model, evaluated against the full model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..classes.labels import ClassNames
from ..errors import InputError
from ..evaluate import Dataset, Evaluation, Progress, Subject, evaluate
from ..models.families import family_of
from ..storage.ownership import Ours, is_manifest, is_records
from .candidates import Candidate
from .front import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench import BenchReport
    from ..bench.route import Route
    from ..bench.subject import Opened
    from ..checkpoint import Checkpoint
    from ..engines.base import Engine

__all__ = ["Step", "SweepSettings", "Task"]

Step = Callable[[str, float], None]  # what is being done, and the share of it that is done
Ranking = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class SweepSettings:
    """How candidates are run.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16``.
        backend: What runs them, one of :func:`evovit_deploy.engines.registry.names`; a TensorRT engine is built for ``batch``.
        provider: ``cpu``, ``cuda`` or ``auto``, of ONNX Runtime and PyTorch.
        threads: CPU threads within an operator.
        batch: Images a measured call.
        min_seconds, min_calls: Of each measurement, at least.
        batch_size: Images in one run of the evaluation.
        workers: Processes that decode; None is the CPU count, at most 8.
    """

    precision: str = "fp32"
    backend: str = "auto"
    provider: str = "auto"
    threads: int = 1
    batch: int = 1
    min_seconds: float = 5.0
    min_calls: int = 50
    batch_size: int = 32
    workers: int | None = None

    @property
    def route(self) -> Route:
        """How a candidate gets to run, the same way as in `evovit bench`."""
        from ..bench.route import Route
        from ..export import ExportOptions
        from ..models.options import ModelOptions

        export = ExportOptions(ModelOptions(self.precision))  # type: ignore[arg-type]
        return Route(self.backend, self.provider, self.threads, (self.batch,), export=export)


@dataclass(frozen=True)
class _Remembered(Subject):
    """The full model, which sees the same images beside every candidate, and is run on each only once."""

    seen: dict[bytes, Ranking | None] = field(default_factory=dict)

    def rank(self, pixels: NDArray[Any]) -> list[Ranking | None]:
        """See :meth:`.Subject.rank`."""
        keys = [hashlib.sha256(image.tobytes()).digest() for image in pixels]
        if new := [at for at, key in enumerate(keys) if key not in self.seen]:
            found = super().rank(np.ascontiguousarray(pixels[new]))
            self.seen.update(zip((keys[at] for at in new), found))
        return [self.seen[key] for key in keys]


@dataclass(frozen=True)
class Task:
    """What all candidates of a sweep have in common.

    Attributes:
        checkpoint: Weights; only its recipe is varied.
        full: The candidate that keeps every patch.
        dataset: Labelled or not.
        classes: Names of the classes.
        folder: Gets ``models/NAME.onnx``.
        settings: How.
        seen: What the full model said of each image, by a digest of its pixels.
    """

    checkpoint: Checkpoint
    full: Candidate
    dataset: Dataset
    classes: ClassNames
    folder: Path
    settings: SweepSettings
    seen: dict[bytes, Ranking | None] = field(default_factory=dict)

    def places(self, candidate: Candidate) -> dict[Path, Ours]:
        """Return every file that running a candidate may write, and how those of evovit are known."""
        from .. import manifest as manifests

        places: dict[Path, Ours] = {self.folder / "outcomes.jsonl": is_records}
        if not self.settings.route.in_torch:
            for one in (self.full, candidate):
                path = self._model_file(one)
                places |= {path: manifests.is_ours, path.with_suffix(".json"): is_manifest("onnx")}
        return places

    def run(self, candidate: Candidate, key: str, step: Step) -> tuple[Outcome, BenchReport]:
        """Export, measure and evaluate one candidate beside the full model; the full model beside itself."""
        with ExitStack() as stack:
            opened: dict[str, tuple[Engine, Path]] = {}
            macs: dict[str, float | None] = {}
            for one in [self.full] if candidate == self.full else [self.full, candidate]:
                step("exporting", 0.0)
                found, path = self._opened(one)
                opened[one.name] = (stack.enter_context(found.engine), path)
                macs[one.name] = found.subject.facts.macs
            report = self._measure({name: engine for name, (engine, _) in opened.items()}, step)

            def progress(state: Progress) -> None:
                step("evaluating", 0.5 + 0.5 * state.done / max(1, state.total))

            full = _Remembered(*opened[self.full.name], self.seen)
            result = evaluate(
                full if candidate == self.full else Subject(*opened[candidate.name]),
                self.dataset,
                self.classes,
                reference=full,
                batch_size=self.settings.batch_size,
                workers=self.settings.workers,
                on_progress=progress,
            )
        return _outcome(key, candidate, self.full, report, result, macs), report

    def _opened(self, candidate: Candidate) -> tuple[Opened, Path]:
        """A candidate ready to run, and the file it came from."""
        route = self.settings.route
        if route.in_torch:
            own = dataclasses.replace(self.checkpoint, recipe=candidate.recipe)
            return route.open_checkpoint(own, self.folder), self.checkpoint.path or Path(candidate.name)
        path = self._exported(candidate)
        return route.open_file(path), path

    def _exported(self, candidate: Candidate) -> Path:
        """The ONNX file of a candidate, exported and proven unless it is there already."""
        from .. import manifest as manifests
        from ..export import export_onnx

        path, checkpoint = self._model_file(candidate), self.checkpoint
        if path.is_file() and manifests.is_ours(path):
            found = manifests.read_file(path) or {}
            weights = {"source": checkpoint.source, "random": checkpoint.random, "sha256": checkpoint.sha256}
            # Through JSON, as the manifest went: tuples become lists.
            same = json.loads(json.dumps([candidate.recipe.to_dict(), weights]))
            if [found.get("recipe"), found.get("weights")] == same:
                return path
        own = dataclasses.replace(checkpoint, recipe=candidate.recipe)
        # What is in the way was allowed to be replaced, or the sweep had not begun.
        return export_onnx(own, path, self.settings.route.export, force=True).path

    def _model_file(self, candidate: Candidate) -> Path:
        return self.folder / "models" / f"{candidate.name}_{self.settings.precision}.onnx"

    def _measure(self, engines: dict[str, Engine], step: Step) -> BenchReport:
        from ..bench import benchmark
        from ..bench.settings import Settings

        settings = self.settings
        least = settings.min_seconds
        report = benchmark(
            engines,
            Settings((settings.batch,), least, settings.min_calls, max_seconds=max(60.0, 3 * least)),
            baseline=self.full.name,
            threads=settings.threads,
            on_progress=lambda share, text: step("measuring", 0.1 + 0.4 * share),
        )
        if report.interrupted:
            raise KeyboardInterrupt
        return report


def _outcome(
    key: str,
    candidate: Candidate,
    full: Candidate,
    report: BenchReport,
    result: Evaluation,
    macs: dict[str, float | None],
) -> Outcome:
    if result.failures:
        path, reason = result.failures[0]
        raise InputError(
            f"{len(result.failures)} images could not be evaluated; the first, {path}: {reason} Take them out of the data "
            "(`evovit eval` names all), so that every candidate is judged by the same images."
        )
    point = next(point for point in report.points if point.subject == candidate.name)
    document, family = result.to_dict(), family_of(candidate.recipe)
    share = None if document["accuracy"] is None else document["accuracy"]["top1"]
    agreement = document["comparison"]["agreement"]["value"]
    drop = 100 * (1 - agreement)
    if share is not None:
        drop = 100 * (document["reference_accuracy"]["top1"]["value"] - share["value"])
    return Outcome(
        key=key,
        name=candidate.name,
        schedule=getattr(candidate.recipe.evolution, "schedule", "stage"),
        keep_ratios=candidate.recipe.evolution.stage_ratios,
        latency_ms=point.p50_ms,
        batch=point.batch,
        images_per_second=point.images_per_second,
        speedup=1.0 if point.speedup is None else point.speedup.ratio,
        speedup_low=None if point.speedup is None else point.speedup.low,
        speedup_high=None if point.speedup is None else point.speedup.high,
        stable=point.stable,
        images=result.evaluated,
        agreement=agreement,
        top1=None if share is None else share["value"],
        top1_low=None if share is None else share["low"],
        top1_high=None if share is None else share["high"],
        drop=drop,
        mcnemar_p=document["comparison"]["mcnemar_p"],
        full_ms=next(point.p50_ms for point in report.points if point.subject == full.name),
        macs=macs[candidate.name],
        full_macs=macs[full.name],
        method=family.method or family.trained,
    )

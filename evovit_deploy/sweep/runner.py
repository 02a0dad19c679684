"""`sweep`: export every candidate, measure it beside the full model, evaluate it against the full model; keep what is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.records import append
from ..classes.labels import ClassNames
from ..errors import InputError, ModelFileError, OutputError
from ..evaluate import Dataset, Evaluation, Progress, Subject, evaluate
from ..storage.ownership import Ours, check_replaceable, is_manifest, is_records
from ..storage.tables import build_table
from .candidates import Candidate
from .front import Outcome

if TYPE_CHECKING:
    from ..bench import BenchReport
    from ..bench.route import Route
    from ..checkpoint import Checkpoint
    from ..engines.base import Engine

__all__ = ["SweepSettings", "read_outcomes", "sweep"]

Step = Callable[[str, float], None]  # what is being done, and the share of the sweep that is done


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


def sweep(
    checkpoint: Checkpoint,
    grid: Sequence[Candidate],
    dataset: Dataset,
    classes: ClassNames,
    folder: Path,
    settings: SweepSettings,
    *,
    restart: bool = False,
    force: bool = False,
    on_step: Step = lambda text, share: None,
) -> list[Outcome]:
    """Run a grid of candidates; what an earlier, interrupted call did is not done again.

    Args:
        checkpoint: Weights; only its recipe is varied.
        grid: From :func:`candidates`, the full model first.
        dataset: Labelled or not.
        classes: Names of the classes.
        folder: Gets ``models/NAME.onnx`` and ``outcomes.jsonl``, a record per candidate; made if
            missing.
        settings: How.
        restart: Measure and evaluate everything again; the newest record of a candidate counts.
        force: Replace files that evovit did not write; its own are replaced always.
        on_step: Called as it goes on.

    Returns:
        One outcome per candidate, in order of the grid.

    Raises:
        OutputError: ``folder`` cannot be written, or holds files of these names that evovit did not write.
        ParityError, ExportError: A candidate could not be exported.
        EngineError: The backend does not run here.
        KeyboardInterrupt: What was finished is in ``folder``.
    """
    try:
        (folder / "models").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}.") from error
    records = folder / "outcomes.jsonl"
    check_replaceable(_places(folder, grid, settings), force=force)
    if force and records.is_file() and not is_records(records):
        records.unlink()
    common = _key(checkpoint, grid[0], dataset, settings)
    done = {} if restart else {outcome.key: outcome for outcome in read_outcomes(records)}
    outcomes = []
    for number, candidate in enumerate(grid):

        def step(text: str, part: float, at: int = number, name: str = candidate.name) -> None:
            on_step(f"{name}: {text}", (at + part) / len(grid))

        key = hashlib.sha256((common + json.dumps(candidate.recipe.to_dict(), sort_keys=True)).encode()).hexdigest()
        if key not in done:
            outcome, report = _run(checkpoint, grid[0], candidate, dataset, classes, folder, settings, key, step)
            append(records, {**dataclasses.asdict(outcome), "environment": report.environment})
            done[key] = outcome
        outcomes.append(done[key])
    return outcomes


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the records of earlier runs; none without a file.

    Raises:
        ModelFileError: A line is not a record.
    """
    if not path.is_file():
        return []
    outcomes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            record = {"full_ms": None, **record}  # which older records lack
            fields = {field.name: record[field.name] for field in dataclasses.fields(Outcome)}
        except (ValueError, LookupError, TypeError) as error:
            raise ModelFileError(f"{path}, line {number}: not a record of a sweep. Move the file away.") from error
        outcomes.append(build_table(Outcome, fields, f"{path}, line {number}"))
    return outcomes


def _key(checkpoint: Checkpoint, full: Candidate, dataset: Dataset, settings: SweepSettings) -> str:
    """What all outcomes of a sweep depend on."""
    from importlib.metadata import version

    parts = dataclasses.asdict(settings) | {"batch_size": None, "workers": None}  # these two change no outcome
    weights = [checkpoint.sha256, checkpoint.source]
    return json.dumps(
        [version("evovit-deploy"), weights, full.recipe.to_dict(), dataset.digest(), parts], sort_keys=True
    )


def _run(
    checkpoint: Checkpoint,
    full: Candidate,
    candidate: Candidate,
    dataset: Dataset,
    classes: ClassNames,
    folder: Path,
    settings: SweepSettings,
    key: str,
    step: Step,
) -> tuple[Outcome, BenchReport]:
    """Export, measure and evaluate one candidate beside the full model; the full model beside itself."""
    with ExitStack() as stack:
        opened: dict[str, tuple[Engine, Path]] = {}
        for one in [full] if candidate == full else [full, candidate]:
            step("exporting", 0.0)
            engine, path = _opened(checkpoint, one, folder, settings)
            opened[one.name] = (stack.enter_context(engine), path)
        report = _measure({name: engine for name, (engine, _) in opened.items()}, full.name, settings, step)
        subjects = {name: Subject(engine, path) for name, (engine, path) in opened.items()}

        def progress(state: Progress) -> None:
            step("evaluating", 0.5 + 0.5 * state.done / max(1, state.total))

        result = evaluate(
            subjects[candidate.name],
            dataset,
            classes,
            reference=subjects[full.name],
            batch_size=settings.batch_size,
            workers=settings.workers,
            on_progress=progress,
        )
    return _outcome(key, candidate, full, report, result), report


def _opened(checkpoint: Checkpoint, candidate: Candidate, folder: Path, settings: SweepSettings) -> tuple[Engine, Path]:
    """A candidate ready to run, and the file it came from."""
    route = settings.route
    if route.in_torch:
        own = dataclasses.replace(checkpoint, recipe=candidate.recipe)
        return route.open_checkpoint(own, folder).engine, checkpoint.path or Path(candidate.name)
    path = _exported(checkpoint, candidate, folder, settings)
    return route.open_file(path).engine, path


def _exported(checkpoint: Checkpoint, candidate: Candidate, folder: Path, settings: SweepSettings) -> Path:
    """The ONNX file of a candidate, exported and proven unless it is there already."""
    from .. import manifest as manifests
    from ..export import export_onnx

    path = _model_file(folder, candidate, settings)
    if path.is_file() and manifests.is_ours(path):
        found = manifests.read_file(path) or {}
        weights = {"source": checkpoint.source, "random": checkpoint.random, "sha256": checkpoint.sha256}
        # Through JSON, as the manifest went: tuples become lists.
        if [found.get("recipe"), found.get("weights")] == json.loads(json.dumps([candidate.recipe.to_dict(), weights])):
            return path
    own = dataclasses.replace(checkpoint, recipe=candidate.recipe)
    # What is in the way was allowed to be replaced, or the sweep had not begun.
    return export_onnx(own, path, settings.route.export, force=True).path


def _model_file(folder: Path, candidate: Candidate, settings: SweepSettings) -> Path:
    return folder / "models" / f"{candidate.name}_{settings.precision}.onnx"


def _places(folder: Path, grid: Sequence[Candidate], settings: SweepSettings) -> dict[Path, Ours]:
    """Every file that a sweep may write, and how those of evovit are known."""
    from .. import manifest as manifests

    places: dict[Path, Ours] = {folder / "outcomes.jsonl": is_records}
    if not settings.route.in_torch:
        for candidate in grid:
            path = _model_file(folder, candidate, settings)
            places |= {path: manifests.is_ours, path.with_suffix(".json"): is_manifest("onnx")}
    return places


def _measure(engines: dict[str, Engine], baseline: str, settings: SweepSettings, step: Step) -> BenchReport:
    from ..bench import benchmark
    from ..bench.settings import Settings

    least = settings.min_seconds
    report = benchmark(
        engines,
        Settings((settings.batch,), least, settings.min_calls, max_seconds=max(60.0, 3 * least)),
        baseline=baseline,
        threads=settings.threads,
        on_progress=lambda share, text: step("measuring", 0.1 + 0.4 * share),
    )
    if report.interrupted:
        raise KeyboardInterrupt
    return report


def _outcome(key: str, candidate: Candidate, full: Candidate, report: BenchReport, result: Evaluation) -> Outcome:
    if result.failures:
        path, reason = result.failures[0]
        raise InputError(
            f"{len(result.failures)} images could not be evaluated; the first, {path}: {reason} Take them out of the data "
            "(`evovit eval` names all), so that every candidate is judged by the same images."
        )
    point = next(point for point in report.points if point.subject == candidate.name)
    document = result.to_dict()
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
    )

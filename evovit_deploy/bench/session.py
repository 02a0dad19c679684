"""One `evovit bench` from what was asked for to reports: opens, measures, evaluates, closes; a report for each run."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .images import DISTINCT, Images, choose_images
from .measure import benchmark
from .report import BenchReport, Peaks, Preprocessing
from .route import Route
from .settings import Settings
from .subjects import Opening

if TYPE_CHECKING:
    from ..classes.folders import ClassOrder
    from ..manifest.spec import ModelSpec

__all__ = ["Models", "Options", "run"]

Tell = Callable[[float, str], None]
# An engine opens in less time than a point takes; only the progress bar depends on it.
OPENING_SHARE = 0.1


@dataclass(frozen=True)
class Models:
    """Models of one run, the first being the one that the baseline resembles.

    Attributes:
        model: Model file or checkpoint, or None.
        others: More model files.
        recipe: Recipe of a checkpoint; alone, it is measured with random weights.
        selections: Selection patterns to measure a recipe with; empty is the export's default.
        baseline: ``auto``, a kind, a file or ``none``.
    """

    model: Path | None = None
    others: tuple[Path, ...] = ()
    recipe: str | None = None
    selections: tuple[str, ...] = ()
    baseline: str = "auto"


@dataclass(frozen=True)
class Options:
    """How all runs of a session are made.

    Attributes:
        settings: How to measure; its batch sizes give way to a static model's own if ``batches_given`` is False.
        route: How models get to run.
        images: See :func:`.images.choose_images`.
        labels: File with class names for accuracy.
        class_order: How training numbered the class folders; None goes by their names.
        batches_given: Whether the batch sizes were asked for.
        preprocess: Measure reading and transforming image files too.
        peaks: Measure what the machine reaches.
        command, suite: For the record.
    """

    settings: Settings = field(default_factory=Settings)
    route: Route = field(default_factory=Route)
    images: str = "sample"
    labels: Path | None = None
    class_order: ClassOrder | None = None
    batches_given: bool = False
    preprocess: bool = False
    peaks: bool = False
    command: str = ""
    suite: str = ""


def run(models: Models, options: Options, tell: Tell = lambda share, text: None) -> BenchReport:
    """Open the models of one run, measure them, and close them.

    Args:
        models: What to measure.
        options: How.
        tell: Called between steps and between measured calls with the share done and what is going on.

    Raises:
        EvoVitError: Models that cannot be opened or compared. Ctrl-C during the measurement is no error: the report says
            ``interrupted``.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evovit-bench-")))
        opening = Opening(stack, folder, options.route)
        opening.step = lambda text: tell(0.0, text)
        _open(opening, models)
        against = opening.baseline(models.baseline)
        static = next((e.spec.batch for e in opening.engines.values() if e.spec.batch is not None), None)
        settings = options.settings
        if static is not None and not options.batches_given:
            settings = dataclasses.replace(settings, batches=(static,))
        first = next(iter(opening.engines.values()))
        images = choose_images(options.images, first.spec, max(settings.batches), settings.seed)
        why = [*images.notes, *_evaluate(opening, images, options.labels, options.class_order, tell)]
        report = benchmark(
            opening.engines,
            settings,
            baseline=against,
            images=images.images,
            described=images.described,
            facts=opening.facts,
            threads=options.route.threads,
            notes=[*opening.notes, *why],
            on_progress=lambda share, text: tell(OPENING_SHARE + (1 - OPENING_SHARE) * share, text),
        )
        subjects = tuple(
            dataclasses.replace(subject, random_weights=True) if subject.label in opening.random else subject
            for subject in report.subjects
        )
        return dataclasses.replace(
            report,
            subjects=subjects,
            preprocessing=_preprocessing(images, first.spec) if options.preprocess else None,
            peaks=() if not options.peaks or report.interrupted else _peaks(report),
            command=options.command,
            suite=options.suite,
        )


def _open(opening: Opening, models: Models) -> None:
    """Open what was asked for."""
    if models.model is not None:
        opening.file(models.model, models.recipe)
    elif models.recipe is not None:
        for selection in models.selections or (None,):
            opening.checkpoint(None, models.recipe, selection)
    for path in models.others:
        opening.file(path)
    if not opening.engines:
        raise InputError("nothing to measure: give an ONNX file, a checkpoint, or a recipe with --random-weights.")


def _evaluate(opening: Opening, images: Images, labels: Path | None, order: ClassOrder | None, tell: Tell) -> list[str]:
    """Accuracy of every trained model into its facts, if the images are labelled; returns what to note."""
    from ..classes.labels import ClassNames
    from ..classes.scores import no_scores
    from .accuracy import labelled, top1

    if not images.files:
        return [] if labels is None else ["labels without --images FOLDER are not used"]
    notes = []
    for label, engine in opening.engines.items():
        read = labelled(images.files, ClassNames.read(labels, engine.spec.num_classes), order)
        if isinstance(read, str):
            return [f"accuracy: not evaluated: {read}"]
        truth, assumed = read
        notes += [f"accuracy: {text}" for text in assumed if f"accuracy: {text}" not in notes]
        if label in opening.random:
            notes.append(f"{label}: accuracy not evaluated, its weights are random")
            continue
        if engine.spec.scores is None:
            notes.append(f"{label}: accuracy not evaluated, {no_scores('it', engine.spec.outputs)}".rstrip("."))
            continue

        def told(share: float, label: str = label) -> None:
            tell(0.0, f"{label}: accuracy, {share:.0%}")

        found = top1(engine, truth, told)
        opening.facts[label] = dataclasses.replace(opening.facts[label], top1=found, labelled=len(truth))
    return notes


def _preprocessing(images: Images, spec: ModelSpec) -> Preprocessing:
    """One thread, as many files as a batch of 16 has, after one unmeasured."""
    from ..images.decode import load_image
    from ..images.transform import preprocess
    from ..recipes import Transform
    from ..storage.shipped import data_folder

    files = images.files[:DISTINCT] or sorted((data_folder("bench") / "images").glob("*.jpg"))

    def prepare(path: Path) -> None:
        preprocess(load_image(path), spec.transform or Transform(), spec.image_size, spec.input)

    prepare(files[0])
    start = time.perf_counter()
    for path in files:
        prepare(path)
    return Preprocessing(len(files), 1000 * (time.perf_counter() - start) / len(files))


def _peaks(report: BenchReport) -> tuple[Peaks, ...]:
    """Of every device and precision that was measured."""
    from .peaks import measure_peaks

    kinds = {(s.device, s.precision) for s in report.subjects if s.device == "cpu" or s.device.startswith("cuda")}
    return tuple(measure_peaks(device, precision, report.environment["threads"]) for device, precision in sorted(kinds))

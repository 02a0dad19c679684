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

from ..engines.registry import is_exported
from ..errors import InputError
from .gpu import same_staging
from .images import DISTINCT, Images, choose_images
from .measure import benchmark
from .report import BenchReport, Peaks, Preprocessing
from .route import Route
from .settings import Settings, baselines_of
from .subjects import Opening

if TYPE_CHECKING:
    from ..checkpoint.options import CheckpointOptions
    from ..classes.folders import ClassOrder
    from ..manifest.spec import ModelSpec

__all__ = ["Options", "run"]

Tell = Callable[[float, str], None]
# An engine opens in less time than a point takes; only the progress bar depends on it.
OPENING_SHARE = 0.1


@dataclass(frozen=True)
class Options:
    """What one run was asked for.

    Attributes:
        model: Model file or checkpoint, or None; the first model is the one that the baseline resembles.
        others: More model files.
        checkpoint: How the model is understood if it is a checkpoint; alone, a recipe or ViT of timm that is measured with
            random weights.
        selections: Selection patterns to measure a recipe with; empty is the export's default.
        baseline: ``auto``, a kind, a file or ``none``; or several between commas.
        backend, provider, threads: What models run on, see :class:`.route.Route`.
        precision: Of checkpoints and recipes; None is the export's default.
        input: Likewise, what they take; None is uint8 on a GPU, to which a quarter of the bytes are copied then, unless a
            file beside them has its own.
        settings: How to measure; its batch sizes give way to a static model's own if ``batches_given`` is False.
        batches_given: Whether the batch sizes were asked for.
        images: See :func:`.images.choose_images`.
        labels: File with class names for accuracy.
        class_order: How training numbered the class folders; None goes by their names.
        preprocess: Measure reading and transforming image files too.
        peaks: Measure what the machine reaches.
        command, suite: For the record.
    """

    model: Path | None = None
    others: tuple[Path, ...] = ()
    checkpoint: CheckpointOptions | None = None
    selections: tuple[str, ...] = ()
    baseline: str = "auto"
    backend: str = "auto"
    provider: str = "auto"
    threads: int | None = None
    precision: str | None = None
    input: str | None = None
    settings: Settings = field(default_factory=Settings)
    batches_given: bool = False
    images: str = "sample"
    labels: Path | None = None
    class_order: ClassOrder | None = None
    preprocess: bool = False
    peaks: bool = False
    command: str = ""
    suite: str = ""

    @property
    def route(self) -> Route:
        """How the models get to run."""
        from ..export import ExportOptions
        from ..models.options import ModelOptions

        batches = self.settings.batches
        route = Route(
            self.backend,
            self.provider,
            self.threads,
            batches,
            batches[:1] if self.settings.until_flat else None,  # the largest may not fit into the memory
        )
        taken = self.input or ("uint8" if self._alone and route.on_gpu else "float32")
        options = ModelOptions(self.precision or "fp32", taken)  # type: ignore[arg-type]
        return route if options == ModelOptions() else dataclasses.replace(route, export=ExportOptions(options))

    @property
    def _alone(self) -> bool:
        """Whether everything in the run is made here, so that its input can be chosen."""
        given = (*filter(None, (self.model,)), *self.others, *map(Path, baselines_of(self.baseline)))
        return not any(path.is_file() and is_exported(path) for path in given)


def run(options: Options, tell: Tell = lambda share, text: None) -> BenchReport:
    """Open the models of one run, measure them, and close them.

    Args:
        options: What to measure, and how.
        tell: Called between steps and between measured calls with the share done and what is going on.

    Raises:
        EvoVitError: Models that cannot be opened or compared. Ctrl-C during the measurement is no error: the report says
            ``interrupted``.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evovit-bench-")))
        opening = Opening(stack, folder, options.route, lambda text: tell(0.0, text))
        _open(opening, options)
        against = opening.baselines(options.baseline)
        same_staging((one.engine for one in opening.subjects.values()), options.threads)
        batches = (one.subject.batch for one in opening.subjects.values())
        static = next((batch for batch in batches if batch is not None), None)
        settings = options.settings
        if static is not None and not options.batches_given:
            settings = dataclasses.replace(settings, batches=(static,))
        spec = next(iter(opening.subjects.values())).engine.spec
        images = choose_images(options.images, spec, max(settings.batches), settings.seed)
        why = [*images.notes, *_evaluate(opening, images, options, tell)]
        report = benchmark(
            opening.subjects,
            settings,
            baseline=against,
            images=images.images,
            described=images.described,
            threads=options.threads,
            notes=[*opening.notes, *why],
            on_progress=lambda share, text: tell(OPENING_SHARE + (1 - OPENING_SHARE) * share, text),
        )
        return dataclasses.replace(
            report,
            preprocessing=_preprocessing(images, spec) if options.preprocess else None,
            peaks=() if not options.peaks or report.interrupted else _peaks(report),
            command=options.command,
            suite=options.suite,
        )


def _open(opening: Opening, asked: Options) -> None:
    """Open what was asked for."""
    if asked.model is not None:
        opening.file(asked.model, asked.checkpoint)
    elif asked.checkpoint is not None:
        for selection in asked.selections or (None,):
            opening.checkpoint(None, asked.checkpoint, selection)
    for path in asked.others:
        opening.file(path)
    if not opening.subjects:
        raise InputError("nothing to measure: give an ONNX file, a checkpoint, or a recipe with --random-weights.")


def _evaluate(opening: Opening, images: Images, options: Options, tell: Tell) -> list[str]:
    """Accuracy of every trained model into its facts, if the images are labelled; returns what to note."""
    from ..classes.labels import ClassNames
    from ..classes.scores import no_scores
    from .accuracy import labelled, top1

    if not images.files:
        return [] if options.labels is None else ["labels without --images FOLDER are not used"]
    notes = []
    for label, opened in opening.subjects.items():
        engine = opened.engine
        if engine.spec.scores is None:
            notes.append(f"{label}: accuracy not evaluated, {no_scores('it', engine.spec.outputs)}".rstrip("."))
            continue
        names = ClassNames.read(options.labels, engine.spec.num_classes)
        read = labelled(images.files, names, options.class_order)
        if isinstance(read, str):
            return [f"accuracy: not evaluated: {read}"]
        truth, assumed = read
        notes += [f"accuracy: {text}" for text in assumed if f"accuracy: {text}" not in notes]
        if opened.subject.random_weights:
            notes.append(f"{label}: accuracy not evaluated, its weights are random")
            continue

        def told(share: float, label: str = label) -> None:
            tell(0.0, f"{label}: accuracy, {share:.0%}")

        found = top1(engine, truth, told)
        opening.subjects[label] = opened.knowing(top1=found, labelled=len(truth))
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

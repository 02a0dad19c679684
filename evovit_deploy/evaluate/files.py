"""`evovit eval` as a call: files in, an evaluation out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..classes.folders import ClassOrder
from ..classes.labels import ClassNames
from ..engines.opening import OpenOptions, open_models
from ..engines.transform import settle_transforms, transform_difference
from ..storage.ownership import check_not_read
from .data import read_dataset
from .report import Evaluation
from .runner import Progress, Subject, evaluate

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["EvalOptions", "evaluate_files"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class EvalOptions:
    """How a model is evaluated.

    Attributes:
        models: How the models are opened; for a file that is no checkpoint the recipe is the one whose transform it must have.
        against: A second model of the same classes.
        labels: File with the class names; None is none.
        class_order: How training numbered the class folders; None goes by their names.
        predictions: CSV file to write.
        batch_size: Images in one run; a static batch goes before.
        workers: Processes that decode; None is the CPU count, at most 8.
        restart: Do not go on with an interrupted run.
        force: Replace predictions that evovit did not write.
    """

    models: OpenOptions = field(default_factory=OpenOptions)
    against: Path | None = None
    labels: Path | None = None
    class_order: ClassOrder | None = None
    predictions: Path | None = None
    batch_size: int = 32
    workers: int | None = None
    restart: bool = False
    force: bool = False


def evaluate_files(
    model: Path,
    data: Path,
    options: EvalOptions | None = None,
    *,
    note: Say = lambda text: None,
    warn: Say = lambda text: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Open a model, and perhaps a second, and evaluate it on a data set.

    Args:
        model: Checkpoint, ONNX file or engine.
        data: See :func:`.read_dataset`.
        options: See :class:`EvalOptions`.
        note: Called with what was assumed.
        warn: Called with what may well be wrong.
        on_progress: See :func:`.evaluate`.

    Raises:
        InputError: Predictions that would be written over what is read, a model exported with another transform, or see
            :func:`.evaluate`.
        EvoVitError: See :func:`.open_models`, :func:`.read_dataset` and :func:`.evaluate`.
    """
    options = options or EvalOptions()
    paths = [model] if options.against is None else [model, options.against]
    if options.predictions is not None:
        check_not_read([options.predictions], [*paths, data, options.labels])
    with ExitStack() as stack:
        engines = open_models(stack, paths, options.models, note=note)
        for engine in engines:
            engine.spec.require_scores()
        settle_transforms(engines, options.models, note)
        _say_differences(engines, note)
        classes = ClassNames.read(options.labels, engines[0].spec.num_classes)
        dataset = read_dataset(data, classes, options.class_order)
        for text in dataset.warnings:
            warn(text)
        for text in dataset.notes:
            note(text)
        subjects = [Subject(engine, path) for engine, path in zip(engines, paths)]
        return evaluate(
            subjects[0],
            dataset,
            classes,
            reference=subjects[1] if len(subjects) > 1 else None,
            predictions=options.predictions,
            batch_size=options.batch_size,
            workers=options.workers,
            restart=options.restart,
            force=options.force,
            on_progress=on_progress,
        )


def _say_differences(engines: Sequence[Engine], note: Say) -> None:
    for engine in engines:
        if engine.spec.manifest is not None and engine.spec.manifest.get("weights", {}).get("random"):
            note(f"{engine.spec.name} has random weights: the classes mean nothing")
    transforms = [engine.spec.transform for engine in engines if engine.spec.transform is not None]
    if len(transforms) == 2 and (difference := transform_difference(*transforms)):
        note(f"the models prepare their images differently, each as it was exported: {difference}")

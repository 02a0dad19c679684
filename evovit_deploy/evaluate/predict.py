"""`evovit predict` as a call: the best classes of image files, and accuracy where their folders say what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..classes.folders import ClassOrder, true_classes
from ..classes.labels import ClassNames
from ..classes.scores import NOT_FINITE, Ranking, probabilities, ranking
from ..engines.base import Engine
from ..errors import InputError
from ..images.batches import Failure, batches
from ..images.folder import SUFFIXES, find_images
from ..manifest.spec import ModelSpec
from ..storage.files import exact, printable

__all__ = ["PredictOptions", "Predictions", "Ran", "predict_files"]

Say = Callable[[str], None]
Done = Callable[[int, int], None]
Failed = Callable[[Path, str], None]


@dataclass(frozen=True)
class PredictOptions:
    """How images are classified.

    Attributes:
        open: Further arguments of ``Engine.open``.
        labels: File with the class names; None is none.
        accuracy: Take the folders that the images lie in for their classes.
        class_order: How training numbered these folders; None goes by their names.
        top_k: Classes an image.
        batch_size: Images in one run; a static batch goes before.
    """

    open: Mapping[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    accuracy: bool = False
    class_order: ClassOrder | None = None
    top_k: int = 5
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.class_order is not None and not self.accuracy:
            raise InputError("--class-order goes with --accuracy.")
        for name in ("top_k", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1.")


@dataclass(frozen=True)
class Ran:
    """The model as it was opened, the best classes of every image, and the reason for every image without."""

    spec: ModelSpec
    backend: str
    device: str
    best: Mapping[Path, Ranking]
    failures: Mapping[Path, str]


# Opens a model, calls the last argument with what it is, and classifies the images.
Runner = Callable[[Path, Sequence[Path], PredictOptions, Callable[[ModelSpec], None]], Ran]


@dataclass(frozen=True)
class Predictions:
    """What the images show.

    Attributes:
        model: The file.
        paths: Images, as they were found.
        ran: What the model said.
        classes: Names of the classes.
        truth: Class of every image; None if nobody asked.
    """

    model: Path
    paths: tuple[Path, ...]
    ran: Ran
    classes: ClassNames
    truth: Mapping[Path, int] | None

    @property
    def failures(self) -> int:
        """Images that could not be classified."""
        return len(self.ran.failures)

    @property
    def results(self) -> list[dict[str, Any]]:
        """For every image its path, the best classes and why there are none."""
        return [
            {
                "path": exact(path),
                "top": [
                    {"class": number, "label": self.classes.label(number), "probability": share}
                    for number, share in self.ran.best.get(path, [])
                ],
                "error": self.ran.failures.get(path),
            }
            for path in self.paths
        ]

    @property
    def score(self) -> dict[str, Any] | None:
        """Top-1 accuracy over the images that were classified; None if nobody asked."""
        if self.truth is None:
            return None
        right = [self.ran.best[path][0][0] == self.truth[path] for path in self.paths if self.ran.best.get(path)]
        return {"top1": sum(right) / len(right) if right else None, "correct": sum(right), "images": len(right)}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "model": exact(self.model),
            "name": self.ran.spec.name,
            "backend": self.ran.backend,
            "device": self.ran.device,
            "precision": self.ran.spec.precision,
            "results": self.results,
            "failures": self.failures,
            "accuracy": self.score,
        }


def predict_files(
    model: Path,
    images: Sequence[Path],
    options: PredictOptions | None = None,
    *,
    run: Runner | None = None,
    note: Say = lambda text: None,
    warn: Say = lambda text: None,
    on_progress: Done = lambda done, total: None,
    on_failure: Failed = lambda path, reason: None,
) -> Predictions:
    """Classify image files.

    Args:
        model: Checkpoint, ONNX file or engine.
        images: Image files, and folders that are searched for images.
        options: See :class:`PredictOptions`.
        run: Classifies elsewhere than in this process, and then does not call ``on_progress`` and ``on_failure``.
        note: Called with what was assumed.
        warn: Called with what was left out or is in doubt.
        on_progress: Called with the number of images done, and of all.
        on_failure: Called for every image that could not be classified; the others go on.

    Raises:
        InputError: An image in place of the model, no images, labels that do not fit, or no class scores.
        EvoVitError: See :meth:`Engine.open`.
    """
    options = options or PredictOptions()
    if model.suffix.lower() in SUFFIXES:
        name = printable(model)
        raise InputError(f"{name} is an image. The model comes first: evovit predict MODEL.onnx {name}")
    left_out: list[str] = []
    paths = find_images(images, left_out)
    for text in left_out:
        warn(text)
    truth: dict[Path, int] | None = None
    classes = ClassNames(())

    def prepare(spec: ModelSpec) -> None:
        """Check what has to be right before anything is run."""
        nonlocal classes, truth
        spec.require_scores()
        classes = ClassNames.read(options.labels, spec.num_classes)
        if options.accuracy:
            truth, numbering = true_classes(paths, classes, options.class_order)
            for text in numbering.warnings:
                warn(text)
            for text in numbering.notes:
                note(text)
        for text in _unusual(spec):
            note(text)

    if run is not None:
        ran = run(model, paths, options, prepare)
    else:
        with Engine.open(model, **options.open) as engine:
            prepare(engine.spec)
            ran = _classify(engine, paths, options, on_progress, on_failure)
    return Predictions(model, tuple(paths), ran, classes, truth)


def _unusual(spec: ModelSpec) -> list[str]:
    found = []
    if spec.transform is None:
        found.append(
            f"{spec.name} does not say how its images are prepared; the ImageNet transform is used (shorter side to "
            f"256/224 of {spec.image_size}, bicubic, centre crop, mean and std of ImageNet)."
        )
    if spec.scores not in ("logits", "probabilities"):
        found.append(
            f"{spec.name} has no output called logits; {spec.scores}, the only [B, classes] there is, is taken for them."
        )
    if spec.manifest is not None and spec.manifest.get("weights", {}).get("random"):
        found.append(f"{spec.name} has random weights: the classes mean nothing.")
    return found


def _classify(
    engine: Engine, paths: Sequence[Path], options: PredictOptions, on_progress: Done, on_failure: Failed
) -> Ran:
    best: dict[Path, Ranking] = {}
    unread: list[Failure] = []
    failed: dict[Path, str] = {}

    def report(path: Path, reason: str) -> None:
        failed[path] = reason
        on_failure(path, reason)

    def report_unread() -> None:
        for failure in unread:
            report(failure.path, failure.reason)
        unread.clear()

    for done, images in batches(paths, engine.spec, engine.spec.batch or options.batch_size, failures=unread):
        for path, row in zip(done, probabilities(engine(images))):
            if np.isfinite(row).all():
                best[path] = ranking(row, options.top_k)
            else:
                report(path, NOT_FINITE)
        report_unread()
        on_progress(len(best) + len(failed), len(paths))
    report_unread()
    return Ran(engine.spec, engine.backend, engine.device, best, failed)

"""`evaluate`: run a model, and perhaps a reference, over labelled images, with a journal that outlives an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..classes.labels import ClassNames
from ..classes.scores import NOT_FINITE, probabilities, ranking
from ..engines.registry import kind_of
from ..errors import InputError
from ..images.transform import normalise
from ..recipes import Transform
from ..storage.files import printable, sha256
from ..storage.ownership import check_replaceable
from .data import Dataset
from .decoding import Decoded, View, check_not_starting, decode, default_workers
from .journal import Row, open_journal
from .metrics import TOP
from .report import Evaluation, describe, gather, is_predictions, write_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.base import Engine

__all__ = ["Progress", "Subject", "evaluate"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands: images done of all, of which ``resumed`` by an earlier run; failures since the last report."""

    done: int
    total: int
    resumed: int
    failures: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Subject:
    """A model to evaluate: an open engine and the file it came from."""

    engine: Engine
    path: Path

    @property
    def transform(self) -> Transform:
        """The transform its images get: its own, or ImageNet's where the file does not say."""
        return self.engine.spec.transform or Transform()

    @property
    def view(self) -> View:
        """What is cut out of an image for it."""
        return View.of(self.transform, self.engine.spec.image_size)

    def rank(self, pixels: NDArray[Any]) -> list[tuple[tuple[int, float], ...] | None]:
        """Map [B, S, S, 3] uint8 -> the best five (class, probability) of each; None where the output is not finite."""
        images = pixels if self.engine.spec.input == "uint8" else normalise(pixels, self.transform)
        return [
            tuple(ranking(row, TOP)) if np.isfinite(row).all() else None for row in probabilities(self.engine(images))
        ]

    def key(self) -> dict[str, Any]:
        """Return what its predictions depend on, for the journal."""
        spec, engine = self.engine.spec, self.engine
        of_checkpoint = kind_of(engine.backend) == "checkpoint"  # whose file does not say which model runs
        return {
            "weights": _fingerprint(engine) if of_checkpoint else sha256(self.path),
            "backend": engine.backend,
            "device": engine.device,
            "transform": repr(self.transform),
            "spec": [spec.image_size, spec.input, spec.num_classes, spec.precision],
        }


def evaluate(
    model: Subject,
    dataset: Dataset,
    classes: ClassNames,
    *,
    reference: Subject | None = None,
    predictions: Path | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    restart: bool = False,
    force: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Evaluate a model on a data set, alone or against a reference.

    Progress is kept on disk: after an interruption the same call goes on where it was. Images that cannot be read, and
    those for which a model gives no finite output, are counted as failures and left out of every figure of both models.

    Args:
        model: What is evaluated.
        dataset: From :func:`read_dataset`; without labels a reference is needed.
        classes: Names of the classes.
        reference: A second model of the same classes.
        predictions: CSV file to write.
        batch_size: Images in one run; a static batch goes before.
        workers: Processes that decode; None is the CPU count, at most 8.
        restart: Do not go on with an interrupted run.
        force: Replace predictions that evovit did not write; its own are replaced always.
        on_progress: Called at the start and after every batch.

    Raises:
        InputError: Wrong number of classes, a model that gives no class scores, or no labels and no reference.
        OutputError: The journal or ``predictions`` cannot be written.
        EngineError: A model failed.
    """
    check_not_starting()
    subjects = [model] if reference is None else [model, reference]
    for subject in subjects:
        subject.engine.spec.require_scores()
    counts = [subject.engine.spec.num_classes for subject in subjects]
    if len(set(counts)) > 1:
        raise InputError(f"the models have {counts[0]} and {counts[1]} classes and cannot be compared.")
    if dataset.labels is None and reference is None:
        raise InputError(
            f"{printable(dataset.source)} has no labels: images lie in no class folder, or there is no column label. "
            "Without labels, give a second model to compare with: --against REFERENCE"
        )
    if predictions is not None:
        check_replaceable({predictions: is_predictions}, force=force)
    key = _key(subjects, dataset)
    with open_journal(_folder() / f"{key[:32]}.jsonl", key, fresh=restart) as journal:
        resumed = journal.count
        on_progress(Progress(resumed, len(dataset.paths), resumed))
        paths = dataset.paths[resumed:]
        size = model.engine.spec.batch or batch_size
        workers = default_workers(len(paths)) if workers is None else workers
        for rows in _run(subjects, paths, size, workers):
            first = journal.count
            journal.append(rows)
            failures = tuple((dataset.paths[first + i], row.error) for i, row in enumerate(rows) if row.error)
            on_progress(Progress(journal.count, len(dataset.paths), resumed, failures))
        models = [describe(subject.engine, subject.path) for subject in subjects]
        result = gather(models, dataset, classes, journal.rows(), resumed)
        if predictions is not None:
            write_predictions(predictions, dataset, journal.rows(), reference=reference is not None)
        journal.discard()
    return result


def _folder() -> Path:
    from ..storage.cache import cache_folder

    return cache_folder() / "eval"


def _key(subjects: Sequence[Subject], dataset: Dataset) -> str:
    from importlib.metadata import version

    parts = [version("evovit-deploy"), dataset.digest(), *(subject.key() for subject in subjects)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(engine: Any) -> str:
    """SHA-256 of a PyTorch model as it runs: one checkpoint file holds several weights, and not the keep ratios."""
    import torch

    digest = hashlib.sha256(json.dumps(engine.recipe.to_dict(), sort_keys=True).encode())
    for name, tensor in engine.module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _run(subjects: Sequence[Subject], paths: Sequence[Path], size: int, workers: int) -> Iterator[list[Row]]:
    """Rows of all images in order, ``size`` at a time."""
    views = tuple(dict.fromkeys(subject.view for subject in subjects))
    batch: list[Decoded | str] = []
    for number, image in enumerate(decode(paths, views, workers), 1):
        batch.append(image)
        if len(batch) == size or number == len(paths):
            yield _rows(subjects, views, batch)
            batch = []


def _rows(subjects: Sequence[Subject], views: tuple[View, ...], batch: Sequence[Decoded | str]) -> list[Row]:
    good = [image for image in batch if not isinstance(image, str)]
    predicted: list[list[tuple[tuple[int, float], ...] | None]] = []
    if good:
        for subject in subjects:
            pixels = np.stack([image[views.index(subject.view)] for image in good])
            predicted.append(subject.rank(pixels))
    found = zip(*predicted)  # one a good image: the rankings of all models
    rows = []
    for image in batch:
        if isinstance(image, str):
            rows.append(Row(error=image))
            continue
        rankings = [ranking for ranking in next(found) if ranking is not None]
        rows.append(Row(tuple(rankings)) if len(rankings) == len(subjects) else Row(error=NOT_FINITE))
    return rows

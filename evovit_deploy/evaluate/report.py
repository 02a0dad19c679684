"""What an evaluation found, gathered from the rows of its journal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classes.labels import ClassNames
from ..storage.files import atomic, exact
from .data import Dataset
from .journal import Row
from .metrics import TOP, Accuracy, Pair, Share, mcnemar

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["Evaluation", "Flip", "gather", "is_predictions", "write_predictions"]


@dataclass(frozen=True)
class Flip:
    """An image that two models put into different classes; ``label`` is None without labels."""

    path: Path
    label: int | None
    model: tuple[int, float]  # class, probability
    reference: tuple[int, float]

    @property
    def kind(self) -> str:
        """``gained`` (only the model is right), ``lost`` (only the reference is), or ``other``."""
        right = [self.label == guess[0] for guess in (self.model, self.reference)]
        return "gained" if right[0] else "lost" if right[1] else "other"


@dataclass
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        models: Description of the model, and of the reference if there is one.
        dataset: What they were evaluated on.
        classes: Their names.
        failures: (path, reason) of every image without a prediction; they are in none of the other figures.
        accuracy: One a model; empty without labels.
        pair: The comparison, or None without a reference.
        flips: Images on which the two differ.
        resumed: Images that an earlier, interrupted run had done.
    """

    models: list[dict[str, Any]]
    dataset: Dataset
    classes: ClassNames
    failures: list[tuple[Path, str]] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    pair: Pair | None = None
    flips: list[Flip] = field(default_factory=list)
    resumed: int = 0

    @property
    def evaluated(self) -> int:
        """Images with a prediction."""
        return len(self.dataset.paths) - len(self.failures)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the answers say against how the data was read: the class folders in their other order fit better."""
        other = self.dataset.other
        if other is None or not self.accuracy:
            return ()
        of = self.accuracy[0]
        taken = of.share(of.top1)
        under = Share(of.hits_with(other.labels), taken.count)
        if under.hits <= taken.hits:
            return ()
        return (
            f"the answers fit the class folders in {other.order} order better: top-1 is then {under.value:.1%}, not "
            f"{taken.value:.1%}. If training numbered them so, give --class-order {other.order}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {
            "schema": 1,
            "model": self.models[0],
            "reference": self.models[1] if len(self.models) > 1 else None,
            "data": exact(self.dataset.source),
            "notes": [*self.dataset.warnings, *self.dataset.notes, *self.warnings],
            "images": len(self.dataset.paths),
            "evaluated": self.evaluated,
            "resumed": self.resumed,
            "failures": [{"path": exact(path), "reason": reason} for path, reason in self.failures],
            "accuracy": self._accuracy(self.accuracy[0]) if self.accuracy else None,
            "reference_accuracy": self._accuracy(self.accuracy[1]) if len(self.accuracy) > 1 else None,
            "comparison": self._comparison(),
        }

    def _accuracy(self, of: Accuracy) -> dict[str, Any]:
        rows = []
        for number in sorted(of.images):
            wrong = of.worst_mistake(number)
            rows.append(
                {
                    "class": number,
                    "label": self.classes.label(number),
                    "images": of.images[number],
                    "top1": of.share(of.top1, number).to_dict(),
                    "top5": of.share(of.top5, number).to_dict() if of.num_classes > TOP else None,
                    "most_taken_for": wrong,
                }
            )
        calibration = of.calibration
        return {
            "top1": of.share(of.top1).to_dict(),
            "top5": of.share(of.top5).to_dict() if of.num_classes > TOP else None,
            "ece": calibration.error,
            "calibration": [
                {"images": n, "accuracy": hits / n if n else None, "confidence": total / n if n else None}
                for n, hits, total in zip(calibration.counts, calibration.hits, calibration.confidence)
            ],
            "classes": rows,
        }

    def _comparison(self) -> dict[str, Any] | None:
        if self.pair is None:
            return None
        labelled = bool(self.accuracy)
        return {
            "agreement": Share(self.pair.agree, self.pair.count).to_dict(),
            "only_model_right": self.pair.only_model if labelled else None,
            "only_reference_right": self.pair.only_reference if labelled else None,
            "mcnemar_p": mcnemar(self.pair.only_model, self.pair.only_reference) if labelled else None,
            "flips": [
                {
                    "path": exact(flip.path),
                    "label": flip.label,
                    "model": flip.model[0],
                    "model_probability": flip.model[1],
                    "reference": flip.reference[0],
                    "reference_probability": flip.reference[1],
                    "kind": flip.kind if labelled else None,
                }
                for flip in self.flips
            ],
        }


def describe(engine: Engine, path: Path) -> dict[str, Any]:
    """Return a JSON-ready description of a model that was evaluated."""
    return {
        "path": exact(path),
        "name": engine.spec.name,
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.spec.precision,
    }


def gather(
    models: list[dict[str, Any]], dataset: Dataset, classes: ClassNames, rows: Iterable[Row], resumed: int = 0
) -> Evaluation:
    """Count the rows of all images, one at a time."""
    result = Evaluation(models, dataset, classes, resumed=resumed)
    if dataset.labels is not None:
        result.accuracy = [Accuracy(len(classes)) for _ in models]
    if len(models) > 1:
        result.pair = Pair()
    for number, (path, row) in enumerate(zip(dataset.paths, rows)):
        if row.error is not None:
            result.failures.append((path, row.error))
            continue
        label = None if dataset.labels is None else dataset.labels[number]
        rankings = [list(ranking) for ranking in row.predictions]
        for accuracy, ranking in zip(result.accuracy, rankings):
            assert label is not None
            accuracy.add(label, ranking)
        if result.pair is not None and result.pair.add(label, *rankings):
            result.flips.append(Flip(path, label, rankings[0][0], rankings[1][0]))
    return result


def is_predictions(path: Path) -> bool:
    """Return whether a CSV file has the columns that :func:`write_predictions` writes."""
    with open(path, encoding="utf-8", newline="") as stream:
        header = next(csv.reader([stream.readline()]), [])
    return header in (_columns(False), _columns(True))


def write_predictions(path: Path, dataset: Dataset, rows: Iterable[Row], *, reference: bool) -> None:
    """Write a CSV file with one line per image, atomically; it is itself a data set with ``path`` and ``label``.

    Args:
        path: File to write.
        dataset: The images.
        rows: Of the journal, in the same order.
        reference: Whether there are two predictions per row.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _columns(reference), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_lines(dataset, rows))


def _columns(reference: bool) -> list[str]:
    names = ["path", "label", "prediction", "probability", "correct", "top5"]
    if reference:
        names += ["reference_prediction", "reference_probability", "agree"]
    return [*names, "error"]


def _lines(dataset: Dataset, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    for number, (path, row) in enumerate(zip(dataset.paths, rows)):
        line: dict[str, Any] = {"path": exact(path.absolute())}
        if dataset.labels is not None:
            line["label"] = dataset.labels[number]
        if row.error is not None:
            yield {**line, "error": row.error}
            continue
        best, probability = row.predictions[0][0]
        line |= {"prediction": best, "probability": f"{probability:.6f}"}
        line["top5"] = " ".join(str(c) for c, _ in row.predictions[0])
        if dataset.labels is not None:
            line["correct"] = int(best == dataset.labels[number])
        for other in row.predictions[1:]:
            line |= {"reference_prediction": other[0][0], "reference_probability": f"{other[0][1]:.6f}"}
            line["agree"] = int(other[0][0] == best)
        yield line

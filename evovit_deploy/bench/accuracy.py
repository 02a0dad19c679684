"""Top-1 accuracy of what is measured, so that nobody reads a speed without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..classes.folders import ClassOrder, true_classes
from ..classes.labels import ClassNames
from ..errors import InputError
from ..images.batches import batches

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["labelled", "top1"]

BATCH = 32


def labelled(
    files: Sequence[Path], classes: ClassNames, order: ClassOrder | None = None
) -> tuple[dict[Path, int], tuple[str, ...]] | str:
    """Return the true class of every file by its folder and what was assumed about the folders, or why there is none, in words.

    Args:
        files: Image files.
        classes: Their names and numbers.
        order: How training numbered the folders, see :func:`evovit_deploy.classes.folders.number_folders`.
    """
    try:
        truth, numbering = true_classes(files, classes, order)
        return truth, (*numbering.warnings, *numbering.notes)
    except InputError as error:
        return str(error).partition(": ")[2]  # without the path: records name no folder of a machine


def top1(engine: Engine, truth: Mapping[Path, int], tell: Callable[[float], None] = lambda share: None) -> float:
    """Return the share of images whose largest class score is their class.

    Raises:
        InputError: An image that cannot be read, or a model that gives no class scores.
    """
    name, right, done = engine.spec.require_scores(), 0, 0
    for paths, images in batches(list(truth), engine.spec, engine.spec.batch or engine.spec.max_batch or BATCH):
        scores = engine(images)[name]
        right += sum(int(row.argmax()) == truth[path] for path, row in zip(paths, scores))
        done += len(paths)
        tell(done / len(truth))
    return right / done

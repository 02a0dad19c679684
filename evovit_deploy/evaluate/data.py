"""Labelled images: a folder with one folder per class, or a CSV or JSON Lines file of paths and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..classes.folders import ClassOrder, class_folders, in_order, number_folders
from ..classes.labels import ClassNames
from ..errors import InputError
from ..images.folder import find_images
from ..storage.files import printable
from ..storage.missing import no_such_file
from .rows import Line, csv_rows, jsonl_rows, local_path

__all__ = ["Dataset", "Other", "read_dataset"]

_SHOWN = 5


@dataclass(frozen=True)
class Other:
    """Another order of the class folders, and the class in it by class in the order that was taken."""

    order: ClassOrder
    labels: Mapping[int, int]


@dataclass(frozen=True)
class Dataset:
    """Images and their classes.

    Attributes:
        source: The folder or file.
        paths: Image files; they need not exist.
        labels: Class number of each, or None when the data has no labels.
        notes: What was assumed or left out.
        warnings: What may well be wrong: images that nothing here reads, class folders whose order is in doubt.
        other: What the classes may be instead, if the order of their folders is in doubt.
    """

    source: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    other: Other | None = None

    def digest(self) -> str:
        """Compute the SHA-256 over paths, labels, sizes and times of change: equal only for the same images in the same order."""
        digest = hashlib.sha256()
        for number, path in enumerate(self.paths):
            try:
                status = path.stat()
                state: tuple[int, ...] = (status.st_size, status.st_mtime_ns)
            except OSError:
                state = ()
            label = None if self.labels is None else self.labels[number]
            digest.update(repr((str(path.absolute()), label, state)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_dataset(source: Path, classes: ClassNames, order: ClassOrder | None = None) -> Dataset:
    """List the images of a data set.

    Args:
        source: A folder in which every folder is a class (torchvision's ImageFolder layout; a folder without class folders
            has no labels); a CSV file with a header line and the columns ``path`` and ``label``; or a JSON Lines file of
            objects with these keys. A label is a class name or number; without that column there are none. Paths are
            relative to the file's folder.
        classes: Of the model. Without names, class folders are class numbers, or else, when there are as many as classes,
            they are the classes in the order of their names, as ImageFolder numbers them.
        order: The order in which training numbered the class folders; see :func:`number_folders`.

    Raises:
        InputError: Nothing there, no image in it, a class the model does not know, or a label out of range. The message
            names the folders, or the file and line.
    """
    if source.is_dir():
        return _read_folder(source, classes, order)
    if order is not None:
        raise InputError(
            f"--class-order is for class folders, and {printable(source)} says the class of every image itself."
        )
    if not source.is_file():
        raise no_such_file(source, InputError, before="--data", what="file or folder")
    suffix = source.suffix.lower()
    if suffix == ".csv":
        return _from_rows(source, *csv_rows(source), classes)
    if suffix in (".jsonl", ".ndjson"):
        return _from_rows(source, *jsonl_rows(source), classes)
    raise InputError(f"--data {printable(source)} must be a folder, a .csv or a .jsonl file.")


def _read_folder(folder: Path, classes: ClassNames, order: ClassOrder | None) -> Dataset:
    notes: list[str] = []
    paths = find_images([folder], notes)
    warnings, notes = tuple(notes), []
    inside = [path.relative_to(folder).parts for path in paths]
    stray = sum(len(parts) == 1 for parts in inside)
    if stray == len(paths):
        return Dataset(folder, tuple(paths), None, warnings=warnings)
    if stray:
        notes.append(f"{stray} of {len(paths)} images lie in no class folder of {printable(folder)} and were left out")
    folders = sorted({parts[0] for parts in inside if len(parts) > 1})
    empty = [name for name in class_folders(folder) if name not in set(folders)]
    if empty:
        notes.append(_about_empty(empty))
    numbering = number_folders(f"--data {printable(folder)}", folders, classes, order, empty)
    numbers = numbering.numbers
    chosen = [(path, numbers[parts[0]]) for path, parts in zip(paths, inside) if len(parts) > 1]
    other = None
    if numbering.other is not None:
        other = Other(numbering.other[0], {numbers[name]: number for name, number in numbering.other[1].items()})
    return Dataset(
        folder,
        tuple(path for path, _ in chosen),
        tuple(label for _, label in chosen),
        (*notes, *numbering.notes),
        (*warnings, *numbering.warnings),
        other,
    )


def _about_empty(names: Sequence[str]) -> str:
    some = ", ".join(printable(Path(name)) for name in in_order(names, "natural")[:_SHOWN])
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = "class folders hold" if len(names) > 1 else "class folder holds"
    return f"{len(names)} {what} no image that can be read: {some}{more}. The other classes keep their numbers"


def _from_rows(source: Path, rows: Sequence[Line], notes: Sequence[str], classes: ClassNames) -> Dataset:
    backslashes = 0
    paths: list[Path] = []
    labels: list[int | None] = []
    for line, row in rows:
        where = f"{printable(source)}, line {line}"
        path = row.get("path")
        if not isinstance(path, str) or not path or "\0" in path:
            raise InputError(f"{where}: the path is {path!r}; it must be the name of an image file.")
        label = None if row.get("label") in (None, "") else _label(row["label"], classes, where)
        if labels and (label is None) != (labels[-1] is None):
            raise InputError(f"{where}: either every image has a label or none; this one and the one before differ.")
        place, changed = local_path(source.parent, path)
        backslashes += changed
        paths.append(place)
        labels.append(label)
    if not paths:
        raise InputError(f"{printable(source)}: no image is listed in it.")
    known = [label for label in labels if label is not None]
    if backslashes:
        notes = [
            *notes,
            f"{backslashes} of {len(paths)} paths are written with backslashes, which were taken for slashes",
        ]
    return Dataset(source, tuple(paths), tuple(known) if known else None, tuple(notes))


def _label(value: Any, classes: ClassNames, where: str) -> int:
    valid = f"Valid: a class number, 0 to {len(classes) - 1}, or a name of --labels."
    if isinstance(value, str):
        try:
            return classes.number(value.strip())
        except InputError as error:
            raise InputError(f"{where}: the label {value!r} {error}. {valid}") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(classes):
        raise InputError(f"{where}: the label {value!r} is not a class. {valid}")
    return value

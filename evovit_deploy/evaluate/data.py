"""Labelled images: a folder with one folder a class, or a CSV or JSON Lines file of paths and labels."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import printable
from ..labels import ClassNames
from ..preprocess import find_images

__all__ = ["Dataset", "read_dataset"]

_SHOWN = 5


@dataclass(frozen=True)
class Dataset:
    """Images and their classes.

    Attributes:
        source: The folder or file.
        paths: Image files; they need not exist.
        labels: Class number of each, or None when the data has no labels.
        notes: What was assumed or left out.
    """

    source: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 over paths, labels, sizes and times of change: equal only for the same images in the same order."""
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


def read_dataset(source: Path, classes: ClassNames) -> Dataset:
    """List the images of a data set.

    Args:
        source: A folder in which every folder is a class (torchvision's ImageFolder layout; a folder without class folders
            has no labels); a CSV file with a header line and the columns ``path`` and ``label``; or a JSON Lines file of
            objects with these keys. A label is a class name or number; without that column there are none. Paths are
            relative to the file's folder.
        classes: Of the model. Without names, class folders are class numbers, or else, when there are as many as classes,
            they are the classes in the order of their names, as ImageFolder numbers them.

    Raises:
        InputError: Nothing there, no image in it, a class the model does not know, or a label out of range. The message
            names the folders, or the file and line.
    """
    if source.is_dir():
        return _read_folder(source, classes)
    if not source.is_file():
        raise InputError(f"--data {printable(source)}: no such file or folder.")
    suffix = source.suffix.lower()
    if suffix == ".csv":
        return _from_rows(source, _csv_rows(source), classes)
    if suffix in (".jsonl", ".ndjson"):
        return _from_rows(source, _jsonl_rows(source), classes)
    raise InputError(f"--data {printable(source)} must be a folder, a .csv or a .jsonl file.")


def _read_folder(folder: Path, classes: ClassNames) -> Dataset:
    paths = find_images([folder])
    inside = [path.relative_to(folder).parts for path in paths]
    stray = sum(len(parts) == 1 for parts in inside)
    if stray == len(paths):
        return Dataset(folder, tuple(paths), None)
    notes = []
    if stray:
        notes.append(f"{stray} of {len(paths)} images lie in no class folder of {printable(folder)} and were left out")
    folders = sorted({parts[0] for parts in inside if len(parts) > 1})
    numbers, assumed = _number_folders(folder, folders, classes)
    chosen = [(path, numbers[parts[0]]) for path, parts in zip(paths, inside) if len(parts) > 1]
    paths = [path for path, _ in chosen]
    return Dataset(folder, tuple(paths), tuple(label for _, label in chosen), (*notes, *assumed))


def _number_folders(folder: Path, names: list[str], classes: ClassNames) -> tuple[dict[str, int], list[str]]:
    """Class number of every class folder, and what was assumed."""
    numbers: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for name in names:
        try:
            numbers[name] = classes.number(name)
        except InputError as error:
            unknown[name] = str(error)
    if not unknown:
        twice = [number for number, count in Counter(numbers.values()).items() if count > 1]
        notes = [f"class {number} has several folders" for number in twice]
        if not classes.named and [numbers[name] for name in names] != sorted(numbers.values()):
            notes.append(
                "the class folders are numbers and were taken as such; a model that was trained through torchvision's "
                "ImageFolder numbers them in the order of their text (0, 1, 10, 2, ...): give --labels with that order"
            )
        return numbers, notes
    if not classes.named and len(names) == len(classes):
        return {name: number for number, name in enumerate(names)}, [
            f"the {len(names)} class folders were numbered in the order of their names, from {names[0]} = 0 to "
            f"{names[-1]} = {len(names) - 1}; give --labels if the model has another order"
        ]
    some = ", ".join(f"{Path(name).name!r} {reason}" for name, reason in list(unknown.items())[:_SHOWN])
    more = f", and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise InputError(
        f"--data {printable(folder)}: the model does not know {len(unknown)} of the {len(names)} class folders: {some}{more}. "
        f"Folders must be named by label (--labels FILE) or by class number, 0 to {len(classes) - 1}; move the others away."
    )


def _csv_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a CSV file."""
    try:
        with open(source, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if reader.fieldnames is None or "path" not in reader.fieldnames:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise InputError(
                    f"{source}: the first line must name the columns path and label; it holds {found[:80]!r}."
                )
            for row in reader:
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num}: not CSV ({error}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}.") from error


def _jsonl_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON Lines file."""
    try:
        with open(source, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{source}, line {number}: not JSON ({error}).") from error
                if not isinstance(row, dict):
                    raise InputError(f"{source}, line {number}: must be an object with path and label, not {line:.40}")
                yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}.") from error


def _from_rows(source: Path, rows: Iterator[tuple[int, dict[str, Any]]], classes: ClassNames) -> Dataset:
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
        paths.append(source.parent / path)
        labels.append(label)
    if not paths:
        raise InputError(f"{printable(source)}: no image is listed in it.")
    known = [label for label in labels if label is not None]
    return Dataset(source, tuple(paths), tuple(known) if known else None)


def _label(value: Any, classes: ClassNames, where: str) -> int:
    valid = f"Valid: a class number, 0 to {len(classes) - 1}, or a name of --labels."
    if isinstance(value, str):
        try:
            return classes.number(value.strip())
        except InputError as error:
            raise InputError(f"{where}: the label {value!r} {error}. {valid}") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(classes):
        raise InputError(f"{where}: the label {value!r} is no class. {valid}")
    return value

"""Class names: the file they are read from, and the way back from a name to a class number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.files import printable
from ..storage.text import read_text

__all__ = ["ClassNames", "read_labels"]


class ClassNames:
    """Numbers and names of a model's classes.

    Args:
        names: Names of every class, the last being the one to show; from :func:`read_labels`. A class may have none.
    """

    def __init__(self, names: Sequence[tuple[str, ...]]) -> None:
        self.names = tuple(names)
        self._numbers: dict[str, set[int]] = {}
        for number, parts in enumerate(self.names):
            for part in parts:
                self._numbers.setdefault(part, set()).add(number)

    @classmethod
    def read(cls, path: Path | None, num_classes: int) -> ClassNames:
        """Read a file, see :func:`read_labels`; without one no class has a name."""
        return cls([()] * num_classes if path is None else read_labels(path, num_classes))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def named(self) -> bool:
        """Whether there are names at all."""
        return bool(self._numbers)

    def label(self, number: int) -> str | None:
        """Return the name to show, or None."""
        return self.names[number][-1] if self.names[number] else None

    def labelled(self, name: str) -> set[int]:
        """Return classes that have this name among their labels; empty if it is none."""
        return self._numbers.get(name, set())

    def number(self, name: str) -> int:
        """Return the class of a name; a name that is no label may be a class number.

        Raises:
            InputError: It is neither, or the name of several classes. The message is the part that follows a name:
                ``"is not a class"``.
        """
        found = self.labelled(name)
        if not found and name.isascii() and name.isdigit() and int(name) < len(self.names):
            return int(name)
        if len(found) != 1:
            raise InputError("is not a class" if not found else f"names {len(found)} classes")
        return next(iter(found))


def read_labels(path: Path, num_classes: int) -> list[tuple[str, ...]]:
    """Return the names of every class, the last of each being the one to show.

    Text with one name a line; a JSON list of names; a JSON object from class number to name, or from name to class number,
    as ``class_to_idx`` of torchvision's and timm's data sets; or ``config.json`` of a Hugging Face model (``id2label``). In
    JSON a name may be a list, such as ``["n01440764", "tench"]``: the last is shown, and every one is a name the class is
    found by.

    Raises:
        InputError: Unreadable, a different number of names than classes, or class numbers that are not 0 to classes - 1; or a
            model that gives no class scores.
    """
    text, _ = read_text(path, "the labels")
    where = printable(path)
    if not num_classes:
        raise InputError(f"{where} names classes, and the model gives no class scores. Leave --labels out.")
    values: list[Any]
    if text.lstrip()[:1] in ("[", "{"):
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where}: begins like JSON and is not: {error}.") from error
        if isinstance(document, dict) and isinstance(document.get("id2label"), dict):
            document = document["id2label"]
        values = _in_class_order(document, num_classes, where) if isinstance(document, dict) else document
    else:
        values = [line.strip() for line in text.rstrip().splitlines()]
    if len(values) != num_classes:
        raise InputError(
            f"{where}: {len(values)} names for a model of {num_classes} classes. Give exactly one name per class, in class order."
        )
    names = [tuple(value) if isinstance(value, list) else (value,) for value in values]
    for number, name in enumerate(names):
        if not name or not all(isinstance(part, str) and part for part in name):
            raise InputError(
                f"{where}: the name of class {number} is {values[number]!r}; it must be text that is not empty."
            )
    return names


def _in_class_order(document: dict[str, Any], num_classes: int, where: str) -> list[Any]:
    """Values of a JSON object by class number."""
    valid = {str(number) for number in range(num_classes)}
    if document and all(isinstance(value, int) and not isinstance(value, bool) for value in document.values()):
        by_number: dict[int, list[str]] = {}
        for name, number in document.items():
            by_number.setdefault(number, []).append(name)
        if set(by_number) == set(range(num_classes)):
            return [by_number[number] for number in range(num_classes)]
        found, what = {str(number) for number in by_number}, "class numbers"
    elif set(document) == valid:
        return [document[str(number)] for number in range(num_classes)]
    else:
        found, what = set(document), "keys"
    wrong = sorted(found ^ valid, key=lambda key: (len(key), key))
    raise InputError(
        f'{where}: {len(document)} entries for {num_classes} classes; the {what} must be "0" to "{num_classes - 1}", and '
        f"{', '.join(wrong[:3])} {'is' if len(wrong) == 1 else 'are'} missing or not among them."
    )

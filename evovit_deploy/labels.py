"""Class names: the file they are read from, and the way back from a name to a class number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import printable

__all__ = ["ClassNames", "read_labels", "true_classes"]


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
        """From a file, see :func:`read_labels`; without one no class has a name."""
        return cls([()] * num_classes if path is None else read_labels(path, num_classes))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def named(self) -> bool:
        """Whether there are names at all."""
        return bool(self._numbers)

    def label(self, number: int) -> str | None:
        """The name to show, or None."""
        return self.names[number][-1] if self.names[number] else None

    def number(self, name: str) -> int:
        """Class of a name; a name that is no label may be a class number.

        Raises:
            InputError: It is neither, or the name of several classes. The message is the part that follows a name:
                ``"is no class"``.
        """
        found = self._numbers.get(name, set())
        if not found and name.isascii() and name.isdigit() and int(name) < len(self.names):
            return int(name)
        if len(found) != 1:
            raise InputError("is no class" if not found else f"names {len(found)} classes")
        return next(iter(found))


def read_labels(path: Path, num_classes: int) -> list[tuple[str, ...]]:
    """Names of every class, the last of each being the one to show.

    Text with one name a line, a JSON list of names, or a JSON object from class number to name. In JSON a name may be a
    list, such as ``["n01440764", "tench"]``: the last is shown, and every one is a name the class is found by.

    Raises:
        InputError: Unreadable, another number of names than classes, or class numbers that are not 0 to classes - 1.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: the labels cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the labels are not UTF-8 text ({error.reason} at byte {error.start}).") from error
    values: list[Any]
    if text.lstrip()[:1] in ("[", "{"):
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}: begins like JSON and is not: {error}.") from error
        if isinstance(document, dict):
            wrong = set(document) ^ {str(number) for number in range(num_classes)}
            if wrong:
                some = ", ".join(sorted(wrong)[:3])
                raise InputError(
                    f'{path}: {len(document)} entries for {num_classes} classes; the keys must be "0" to '
                    f'"{num_classes - 1}", and {some} {"is" if len(wrong) == 1 else "are"} missing or not among them.'
                )
            values = [document[str(number)] for number in range(num_classes)]
        else:
            values = document
    else:
        values = [line.strip() for line in text.rstrip().splitlines()]
    if len(values) != num_classes:
        raise InputError(
            f"{path}: {len(values)} names for a model of {num_classes} classes. Give exactly one name a class, in class order."
        )
    names = [tuple(value) if isinstance(value, list) else (value,) for value in values]
    for number, name in enumerate(names):
        if not name or not all(isinstance(part, str) and part for part in name):
            raise InputError(
                f"{path}: the name of class {number} is {values[number]!r}; it must be text that is not empty."
            )
    return names


def true_classes(paths: Sequence[Path], classes: ClassNames) -> dict[Path, int]:
    """Class of every image, from the name of its folder: a label, or else a class number.

    Raises:
        InputError: A folder whose name is no class.
    """
    truth = {}
    for path in paths:
        folder = path.absolute().parent.name
        try:
            truth[path] = classes.number(folder)
        except InputError as error:
            raise InputError(
                f"{printable(path)}: the class is taken from the folder, and {folder!r} {error}. Folders must be named by label "
                f"(--labels FILE) or by class number, 0 to {len(classes) - 1}."
            ) from None
    return truth

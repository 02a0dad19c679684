"""Class names, and the true class of an image from the folder it lies in."""

from __future__ import annotations

import json as jsonlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["read_labels", "shown", "true_classes"]


def read_labels(path: Path, num_classes: int) -> list[tuple[str, ...]]:
    """Names of every class, the last of each being the one to show.

    Text with one name a line, a JSON list of names, or a JSON object from class number to name. In JSON a name may be a
    list, such as ``["n01440764", "tench"]``: the last is shown, and every one is a folder name for ``--accuracy``.

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
            document = jsonlib.loads(text)
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


def true_classes(paths: Sequence[Path], names: Sequence[tuple[str, ...]]) -> dict[Path, int]:
    """Class of every image, from the name of its folder: a label, or else a class number.

    Args:
        paths: Image files.
        names: Names of every class, from :func:`read_labels`; empty tuples where there are none.

    Raises:
        InputError: A folder whose name is no class.
    """
    classes: dict[str, set[int]] = {}
    for number, parts in enumerate(names):
        for part in parts:
            classes.setdefault(part, set()).add(number)
    truth = {}
    for path in paths:
        folder = path.absolute().parent.name
        found = classes.get(folder, set())
        if not found and folder.isascii() and folder.isdigit() and int(folder) < len(names):
            found = {int(folder)}
        if len(found) != 1:
            why = "is no class" if not found else f"names {len(found)} classes"
            raise InputError(
                f"{shown(path)}: the class is taken from the folder, and {folder!r} {why}. Folders must be named by "
                f"label (--labels FILE) or by class number, 0 to {len(names) - 1}."
            )
        (truth[path],) = found
    return truth


def shown(path: Path) -> str:
    """The path as text that any terminal and JSON reader takes, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")

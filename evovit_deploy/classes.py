"""Classes: their names from a file, and their probabilities from what a model gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["probabilities", "read_labels"]

Array = NDArray[Any]


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


def probabilities(outputs: dict[str, Array]) -> Array:
    """[B, classes] float64: the softmax of the logits, or the model's own probabilities where it gives no logits."""
    if "logits" not in outputs and "probabilities" in outputs:
        return outputs["probabilities"].astype(np.float64)
    logits = outputs.get("logits", next(iter(outputs.values()))).astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinities; the caller names the image
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        result: Array = exponentials / exponentials.sum(1, keepdims=True)
    return result

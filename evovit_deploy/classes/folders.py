"""From the names of class folders to class numbers: by label, by number, or by the order they were numbered in for training.

Two orders are common. torchvision's ImageFolder sorts the names as text (1, 10, 2); timm's own reader sorts them naturally
(1, 2, 10), whatever the case of letters. A model does not say which one it was trained with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..storage.files import printable
from .labels import ClassNames

__all__ = ["ClassOrder", "Numbering", "class_folders", "in_order", "number_folders", "true_classes"]

ClassOrder = Literal["text", "natural"]
_READERS: dict[ClassOrder, str] = {"text": "torchvision's ImageFolder", "natural": "timm's own reader"}
_SHOWN = 5
_SPLITS = {"dev", "test", "train", "training", "val", "valid", "validation"}


@dataclass(frozen=True)
class Numbering:
    """Which class each folder holds.

    Attributes:
        numbers: Class number of every folder by name.
        notes: What was assumed.
        warnings: What may well be wrong.
        other: The order that the folders may have been numbered in instead, and the numbers that they would have; None if
            there is no doubt.
    """

    numbers: Mapping[str, int]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    other: tuple[ClassOrder, Mapping[str, int]] | None = None


def in_order(names: Sequence[str], order: ClassOrder) -> list[str]:
    """Sort folder names as ``torchvision.datasets.ImageFolder`` (text) or as timm's reader of folders does (natural)."""
    return sorted(names) if order == "text" else sorted(names, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    parts: list[str | int] = list(re.split(r"(\d+)", name.lower()))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name


def number_folders(
    where: str, names: Sequence[str], classes: ClassNames, order: ClassOrder | None = None, others: Sequence[str] = ()
) -> Numbering:
    """Find the class of every class folder.

    Args:
        where: What they are in, for messages.
        names: Folders with images.
        classes: Of the model.
        order: How the folders were numbered in training; None goes by label, else by number, else in the order of text.
        others: Folders beside them without an image. They count in an order, as they do in ImageFolder: none after them moves.

    Raises:
        InputError: Folders that are no class, a different number of folders than classes for an order, or an order that
            contradicts the labels.
    """
    everything = [*names, *others]
    if order is not None:
        return Numbering(_by_order(where, everything, names, classes, order))
    known, unknown = _by_name(everything, classes)
    # An empty folder that is not a class does no harm, unless all are numbers and it shows that they do not start at 0.
    if set(unknown) <= {name for name in others if not _is_number(name)}:
        return _known(known, names, classes)
    counted = _counted(everything, names, len(classes))
    if not classes.named and counted is not None:
        return _assumed(counted)
    raise InputError(_about_unknown(where, names, unknown, classes, counted is not None))


def _by_name(names: Sequence[str], classes: ClassNames) -> tuple[dict[str, int], dict[str, str]]:
    """Class numbers of the folders that are named by label or number, and what is wrong with the others."""
    known: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for name in names:
        try:
            known[name] = classes.number(name)
        except InputError as error:
            unknown[name] = str(error)
    return known, unknown


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _counted(everything: Sequence[str], names: Sequence[str], count: int) -> Sequence[str] | None:
    """The folders that are the classes by their number: all of them, or those with images; None if neither fits."""
    return next((group for group in (everything, names) if len(group) == count), None)


def _numbered(names: Sequence[str], order: ClassOrder) -> dict[str, int]:
    return {name: number for number, name in enumerate(in_order(names, order))}


def _by_order(
    where: str, everything: Sequence[str], names: Sequence[str], classes: ClassNames, order: ClassOrder
) -> dict[str, int]:
    count = len(classes)
    group = _counted(everything, names, count)
    every_number = [str(number) for number in range(count)]
    if group is None and set(everything) <= set(every_number):
        group = every_number  # only some of the classes have a folder, and these say which
    if group is None:
        raise InputError(
            f"--class-order {order} numbers the class folders, so there must be one for each of the model's {count} classes, "
            f"and {where} has {len(everything)}. Add an empty folder for every class without images, or give "
            "--labels FILE with the names of the folders in class order instead."
        )
    numbers = _numbered(group, order)
    for name, number in numbers.items():
        by_label = classes.labelled(name)
        if by_label and number not in by_label:
            raise InputError(
                f"--class-order {order} makes the folder {name} class {number}, and by --labels it is class {min(by_label)}. "
                "Leave one of the two options out."
            )
    return numbers


def _known(known: Mapping[str, int], names: Sequence[str], classes: ClassNames) -> Numbering:
    several = [number for number, count in Counter(known.values()).items() if count > 1]
    notes = tuple(f"class {number} has several folders" for number in several)
    as_text = _numbered([str(number) for number in range(len(classes))], "text")
    # Numbers in a folder's name may be its class, or sorted as text: folder 10 is then class 2.
    doubt = not classes.named and any(as_text.get(name, known[name]) != known[name] for name in names)
    if not doubt:
        return Numbering(known, notes)
    natural = _numbered([str(number) for number in range(len(classes))], "natural")
    other = {name: as_text.get(name, known[name]) for name in known}
    return Numbering(known, notes, (_about_orders(natural, as_text, "natural"),), ("text", other))


def _assumed(names: Sequence[str]) -> Numbering:
    text, natural = _numbered(names, "text"), _numbered(names, "natural")
    if text == natural:
        shown = ", ".join(f"{name} = {number}" for name, number in list(text.items())[:_SHOWN])
        more = ", ..." if len(text) > _SHOWN else ""
        said = f"the {len(text)} class folders were numbered in the order of their names: {shown}{more}; give --labels if the "
        return Numbering(text, (f"{said}model has another order",))
    return Numbering(text, (), (_about_orders(text, natural, "text"),), ("natural", natural))


def _about_orders(taken: Mapping[str, int], other: Mapping[str, int], order: ClassOrder) -> str:
    against: ClassOrder = "natural" if order == "text" else "text"
    first = next(i for i, (a, b) in enumerate(zip(taken, other)) if a != b)

    def shown(numbers: Mapping[str, int]) -> str:
        start = max(0, first - 1)
        part = [f"{name} = {number}" for name, number in list(numbers.items())[start : first + 2]]
        return ", ".join([*(["..."] if start else []), *part, *(["..."] if first + 2 < len(numbers) else [])])

    return (
        f"the model does not say in which order its {len(taken)} class folders were numbered. Taken: {order} order, as "
        f"{_READERS[order]} does ({shown(taken)}). In {against} order, as {_READERS[against]} does, they are ({shown(other)}). "
        "Say which with --class-order text or natural, or give --labels FILE with the names of the folders in class order"
    )


def _about_unknown(
    where: str, names: Sequence[str], unknown: Mapping[str, str], classes: ClassNames, fits: bool
) -> str:
    some = ", ".join(f"{printable(Path(name))!r} {reason}" for name, reason in list(unknown.items())[:_SHOWN])
    more = f", and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    text = f"{where}: the model does not know {len(unknown)} of the {len(names)} class folders: {some}{more}. "
    split = next((name for name in names if name.lower() in _SPLITS), None)
    if split is not None:
        return f"{text}{split} looks like a part of a data set, not like a class: give that folder alone."
    text += f"Folders must be named by label (--labels FILE) or by class number, 0 to {len(classes) - 1}; move the others away."
    if fits:
        text += " Or, as there is one for each class, say how training numbered them: --class-order text or natural."
    return text


def true_classes(
    paths: Sequence[Path], classes: ClassNames, order: ClassOrder | None = None
) -> tuple[dict[Path, int], Numbering]:
    """Return the class of every image, from the name of its folder, and how the folders were numbered; see
    :func:`number_folders`.

    Raises:
        InputError: A folder whose name is not a class.
    """
    folders = {path: path.absolute().parent for path in paths}
    names = list(dict.fromkeys(folder.name for folder in folders.values()))
    others: dict[str, None] = {}
    if order is not None:  # folders beside them count, even where only some were given
        for parent in {folder.parent for folder in folders.values()}:
            others.update(dict.fromkeys(class_folders(parent)))
    known = _by_name(names, classes)[0]
    first = next((path for path in paths if folders[path].name not in known), paths[0])
    where = f"{printable(first)}: the class is taken from the folder"
    numbering = number_folders(where, names, classes, order, [name for name in others if name not in names])
    return {path: numbering.numbers[folder.name] for path, folder in folders.items()}, numbering


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, but for hidden ones, in the order of text."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))

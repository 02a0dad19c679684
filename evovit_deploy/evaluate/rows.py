"""Rows of a CSV or JSON Lines file that lists images and their labels, as people's programs write them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.files import printable
from ..storage.text import read_text

__all__ = ["Line", "csv_rows", "jsonl_rows", "local_path"]

Line = tuple[int, dict[str, Any]]  # number, values by column
_SEPARATORS = ",;\t"


def csv_rows(source: Path) -> tuple[list[Line], list[str]]:
    """Return the rows of a CSV file, and what was assumed.

    Columns are separated by commas, semicolons (Excel in countries with a decimal comma) or tabs; their names may be in any
    case. Rows without any value are left out, as is Excel's ``sep=;`` before the names.

    Raises:
        InputError: Unreadable, not CSV, or without a column ``path``. The message names the file, and the line.
    """
    text, guessed = read_text(source, "its lines", legacy=True)
    notes = [] if guessed is None else [f"{printable(source)} is not UTF-8 and was read as {guessed}"]
    skipped = 0
    if text[:4].lower() == "sep=":
        _, _, text = text.partition("\n")
        skipped = 1
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[Line] = []
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if "path" not in names:
            found = ", ".join(names) or "nothing"
            raise InputError(
                f"{printable(source)}: the first line must name the columns path and label; it holds {found[:80]!r}."
            )
        for values in reader:
            if any(value.strip() for value in values):
                rows.append((reader.line_num + skipped, dict(zip(names, values))))
    except csv.Error as error:
        raise InputError(f"{printable(source)}, line {reader.line_num + skipped}: not CSV ({error}).") from error
    return rows, notes


def jsonl_rows(source: Path) -> tuple[list[Line], list[str]]:
    """Return the rows of a JSON Lines file, and what was assumed.

    Raises:
        InputError: Unreadable, or a line that is not a JSON object. The message names the file and line.
    """
    return list(_objects(source)), []


def _objects(source: Path) -> Iterator[Line]:
    text, _ = read_text(source, "its lines")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{printable(source)}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(
                f"{printable(source)}, line {number}: must be an object with path and label, not {line:.40}"
            )
        yield number, row


def local_path(folder: Path, written: str) -> tuple[Path, bool]:
    """Return a path as it is written in a file of ``folder``, and whether its backslashes were taken for separators.

    They are only where a backslash may be part of a name (not on Windows), and no file has that name.
    """
    path = folder / written
    if "\\" not in written or os.sep == "\\" or path.exists():
        return path, False
    return folder / written.replace("\\", "/"), True

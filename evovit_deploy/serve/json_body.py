"""The JSON of a request, in which the numbers of ``data`` stay text until their count is known to be right.

A parser makes an object of 30 to 90 bytes from two or three characters of text, and works without letting other threads run.
So the long lists are cut out, counted and held against the declared shape, and then read in small pieces into an array of
that shape. What is left of the document is small.
"""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.batching.requests import Array
from .rejections import Rejected

__all__ = ["MAX_DOCUMENT", "Numbers", "numbers_of", "read_document"]

MAX_DOCUMENT = 1 << 16  # bytes of JSON without the numbers
PIECE = 1 << 16  # bytes of numbers that are read at once: about 3 ms in which no other thread runs
GAP = 4096  # most bytes between two commas
STEP = 1 << 20  # bytes that are looked at at once
SPACE = rb"[ \t\r\n]"
NUMBERS = re.compile(rb"[\[\]0-9eE+\-., \t\r\n]*")
# A quote after a backslash is inside a string, so this is always a key.
DATA = re.compile(rb'(?<!\\)"data"' + SPACE + rb"{0,64}:" + SPACE + rb"{0,64}(?=\[)")
MISPLACED = re.compile(rb"\](?=[-0-9])|\[(?<=[0-9]\[)")
NO_BRACKETS = bytes.maketrans(b"[]", b"  ")
NOT_STRUCTURE = b"0123456789eE+-. \t\r\n"
MARK = secrets.token_hex(8)  # stands in the document where numbers were; clients cannot know it


@dataclass(frozen=True)
class Numbers:
    """A JSON list of numbers, nested or not, that is not read yet: ``text[start:end]``."""

    text: bytes
    start: int
    end: int

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return values as an array; nothing is allocated unless the text has as many numbers as ``shape``.

        Args:
            shape: [n, ...], what the list holds, flat or nested.
            dtype: float32, or uint8, which takes whole numbers only.

        Raises:
            ValueError: The text is not JSON, or its numbers are not those of the dtype; the message says what they must be.
            IndexError: Too few or many numbers, or nested in another way.
        """
        count = math.prod(shape)
        if self.text.count(b",", self.start, self.end) + 1 != count:
            raise IndexError
        nested = self.text[self.start + 1 : self.start + GAP].lstrip()[:1] == b"["
        unit, units = (_nested(shape[1:]) + b",", shape[0]) if nested else (b",", count)
        result = np.empty(shape, dtype)
        flat = result.reshape(-1)
        at, filled, seen = self.start, 0, 0
        while at < self.end:
            piece = self._piece(at)
            at += len(piece) + 1
            structure = piece.translate(None, NOT_STRUCTURE) + (b"," if at < self.end else b"")
            if structure != _structure(unit, units, seen, len(structure)):
                raise IndexError
            seen += len(structure)
            if nested and MISPLACED.search(piece.translate(None, b" \t\r\n")):
                raise ValueError("JSON")
            values = _values(piece, dtype)
            flat[filled : filled + len(values)] = values
            filled += len(values)
        return result

    def _piece(self, at: int) -> bytes:
        """Text from ``at`` up to a comma, which is left out, or to the end."""
        stop = at + PIECE
        if stop < self.end:
            stop = self.text.find(b",", stop, min(stop + GAP, self.end))
            if stop < 0 and self.end - at > PIECE + GAP:
                raise ValueError("JSON")
        return self.text[at : stop if 0 <= stop < self.end else self.end]


def read_document(text: bytes, size: int) -> tuple[dict[str, Any], list[Numbers]]:
    """Return the JSON object in ``text[:size]``; lists of numbers called ``data`` are taken out, for :func:`numbers_of`.

    Raises:
        Rejected: 413, more than :data:`MAX_DOCUMENT` bytes beside the numbers; 400, not a JSON object.
    """
    parts: list[bytes] = []
    found: list[Numbers] = []
    room, at, look = MAX_DOCUMENT, 0, 0
    while room >= look - at and (key := DATA.search(text, look, min(size, at + room + GAP))):
        look = key.end()
        end = _end_of_numbers(text, look, size)
        if end == look:
            continue
        parts += text[at:look], f'"{MARK}{len(found)}"'.encode()
        found.append(Numbers(text, look, end))
        room -= look - at + len(parts[-1])
        at = look = end
    if size - at > room:
        raise Rejected(413, f"the JSON of a request takes at most {MAX_DOCUMENT} bytes beside the numbers in data.")
    parts.append(text[at:size])
    try:
        document = json.loads(b"".join(parts), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Rejected(400, "the request is not JSON.") from None
    if not isinstance(document, dict):
        raise Rejected(400, "the request is not a JSON object.")
    return document, found


def numbers_of(data: Any, found: list[Numbers]) -> Numbers | None:
    """Return the numbers that ``data`` of a document stands for, or None if it was no list of numbers."""
    if isinstance(data, str) and data.startswith(MARK):
        return found[int(data[len(MARK) :])]
    return None


def _end_of_numbers(text: bytes, start: int, size: int) -> int:
    """Where the list that begins at ``start`` ends, or ``start`` if anything but numbers and lists is in it."""
    end = start
    while end < size:
        stop = min(end + STEP, size)
        match = NUMBERS.match(text, end, stop)
        end = match.end() if match else end
        if end < stop:
            break
    last = text.rfind(b"]", start, end) + 1
    whole = text.count(b"[", start, last) == text.count(b"]", start, last)
    return last if last and whole else start


def _values(piece: bytes, dtype: np.dtype[Any]) -> Array:
    try:
        listed = json.loads(b"[" + piece.translate(NO_BRACKETS) + b"]")
    except (ValueError, RecursionError):
        raise ValueError("JSON") from None
    kind = "numbers" if dtype.kind == "f" else "whole numbers"
    try:
        values = np.array(listed, np.float64 if dtype.kind == "f" else None)
    except OverflowError:
        raise ValueError(f"a list of {kind}") from None
    if len(values) != piece.count(b",") + 1:  # nothing after the last comma
        raise ValueError("JSON")
    if dtype.kind == "u":
        if values.dtype.kind not in "iu":
            raise ValueError(f"a list of {kind}")
        if values.min() < 0 or values.max() > np.iinfo(dtype).max:
            raise ValueError(f"within 0 to {np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):
        return values.astype(dtype)


@functools.lru_cache(maxsize=8)
def _nested(shape: tuple[int, ...]) -> bytes:
    """Brackets and commas of one image."""
    text = b"," * (shape[-1] - 1)
    for size in (*reversed(shape[:-1]), 1):
        text = b",".join([b"[" + text + b"]"] * size)
    return text


def _structure(unit: bytes, units: int, start: int, length: int) -> bytes:
    """``length`` bytes from ``start`` of the structure of a list: ``units`` times ``unit``, which ends in a comma."""
    whole = 1 + len(unit) * units  # the last comma is the closing bracket
    end = min(start + length, whole)
    first, last = max(start - 1, 0), end - 1
    skipped = first // len(unit)
    text = (unit * (last // len(unit) - skipped + 1))[first - skipped * len(unit) : last - skipped * len(unit)]
    text = text if start else b"[" + text
    return text[:-1] + b"]" if end == whole else text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

"""Reading what was typed: lists of numbers and words, times, choices."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from ..errors import InputError

__all__ = ["amounts", "batch_size", "batch_sizes", "duration", "numbers", "ratios", "word", "words"]


def word(choice: Enum | None) -> Any:
    """Return the word of a choice; None where nothing was chosen."""
    return None if choice is None else choice.value


def words(text: str) -> tuple[str, ...]:
    """Read ``logits,kept``."""
    return tuple(part.strip() for part in text.split(","))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``1,8,32`` as numbers.

    Raises:
        InputError: It is none, as for all that follow.
    """
    parts = words(text)
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"{option} {text!r} is not a list of numbers from 1; for example: {option} 1,8,32")
    return tuple(dict.fromkeys(int(part) for part in parts))


def ratios(option: str, text: str, example: str) -> tuple[float, ...]:
    """Read ``0.7,0.5`` as keep ratios."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers; for example: {option} {example}") from None


def amounts(option: str, text: str) -> tuple[float, ...]:
    """Read ``8``, ``8,8,4`` or ``4,-1.0`` as numbers of tokens, whole ones as such."""
    try:
        return tuple(int(part) if re.fullmatch(r"[+-]?[0-9]+", part) else float(part) for part in words(text))
    except ValueError:
        raise InputError(f"{option} {text!r} is not a list of numbers; for example: {option} 8") from None


def duration(option: str, text: str, example: str) -> float:
    """Read ``5ms``, ``0.1s``, ``800us``, ``10m``, ``2h`` or a number of milliseconds, in milliseconds."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|us|m|h)?\s*", text)
    if not found or not float(found[1]):
        raise InputError(f"{option} {text!r} is not a time; for example: {option} {example}")
    return float(found[1]) * {"s": 1e3, "us": 1e-3, "m": 60e3, "h": 3600e3}.get(found[2], 1.0)


def batch_size(text: str) -> int | None:
    """Read ``dynamic``, or several sizes, as None, else a number of images."""
    sizes = batch_sizes(text)
    return sizes[0] if len(sizes) == 1 else None


def batch_sizes(text: str) -> tuple[int, ...]:
    """Read ``dynamic`` as nothing, else ``8`` or ``1,8,64`` as numbers of images."""
    if text == "dynamic":
        return ()
    parts = words(text)
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--batch {text!r}; give `dynamic` or a number from 1.")
    return tuple(dict.fromkeys(map(int, parts)))

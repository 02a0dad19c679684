"""What a JSON document has to look like: the kind of value at every key, checked before code relies on it.

A shape is one of:

    object                          anything
    str, bool, int, float, None     a value of that kind (a bool is no number; a float may be written as an int; both are finite)
    Between(1, 8)                   a whole number in that range
    frozenset({"a", "b"})           one of these
    (str, None)                     any of these shapes
    [str]                           a list of such values
    {str: int}                      an object with any keys and such values
    {"name": str, "batch?": int}    an object with these keys, `?` for one that may be missing; other keys are not looked at
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

__all__ = ["Between", "misfit"]

_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", None: "null"}


class Between(NamedTuple):
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int


def misfit(value: Any, shape: Any, where: str = "") -> str | None:
    """Say what is wrong with ``value``, in words that begin with the key; None if it has the shape.

    Args:
        value: Parsed JSON.
        shape: See the module.
        where: Key of ``value``, empty for the document itself.
    """
    if isinstance(shape, dict) and str in shape:
        if not isinstance(value, dict):
            return _wrong(value, "an object", where)
        found = (misfit(inner, shape[str], _at(where, key)) for key, inner in value.items())
        return next((text for text in found if text), None)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _wrong(value, "an object", where)
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if name not in value:
                if key == name:
                    return f"{_at(where, name)!r} is missing"
                continue
            if text := misfit(value[name], inner, _at(where, name)):
                return text
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(value, "a list", where)
        found = (misfit(inner, shape[0], f"{where}[{i}]") for i, inner in enumerate(value))
        return next((text for text in found if text), None)
    if isinstance(shape, tuple) and not isinstance(shape, Between):
        texts = [misfit(value, inner, where) for inner in shape]
        return None if None in texts else texts[0]
    return None if _is(value, shape) else _wrong(value, _name(shape), where)


def _is(value: Any, shape: Any) -> bool:
    if isinstance(shape, frozenset):
        return isinstance(value, str) and value in shape
    if isinstance(shape, Between):
        return isinstance(value, int) and not isinstance(value, bool) and shape.least <= value <= shape.most
    if shape is object:
        return True
    if shape is None:
        return value is None
    if shape is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _finite(value)
    return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _name(shape: Any) -> str:
    if isinstance(shape, frozenset):
        return f"one of {', '.join(sorted(shape))}"
    if isinstance(shape, Between):
        return f"a whole number from {shape.least} to {shape.most}"
    return _NAMES[shape]


def _wrong(value: Any, wanted: str, where: str) -> str:
    text = ascii(value)
    text = text if len(text) <= 40 else f"{text[:40]}..."
    return f"{where or 'the document'} is {text}, not {wanted}"


def _at(where: str, key: object) -> str:
    name = str(key)[:40]
    name = name if name.isprintable() else ascii(name)[1:-1]
    return f"{where}.{name}" if where else name

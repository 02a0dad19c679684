"""TOML tables to dataclasses: unknown and missing keys are errors, named with the file they are in."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any, TypeVar

from ..errors import EvoVitError, RecipeError
from ..suggest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["build_table", "read_toml"]

T = TypeVar("T")


def build_table(cls: type[T], table: Any, where: str) -> T:
    """Make a dataclass from a table; lists become tuples.

    Args:
        cls: A dataclass; its ``__post_init__`` may raise an EvoVitError for impossible values.
        table: What the TOML or JSON file held.
        where: File and table, for messages.

    Raises:
        RecipeError: Not a table, an unknown or missing key, or an impossible value.
    """
    if not isinstance(table, dict):
        raise RecipeError(f"{where} must be a table, not {type(table).__name__}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise RecipeError(
            f"{where}: unknown key {unknown[0]!r}; valid: {', '.join(fields)}.{did_you_mean(unknown[0], fields)}"
        )
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(table))
    if missing:
        raise RecipeError(f"{where}: {missing[0]!r} is missing.")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        _check_numbers(values)
        return cls(**values)
    except EvoVitError as error:
        raise RecipeError(f"{where}: {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecipeError(f"{where}: a value has the wrong type ({error}).") from error


def _check_numbers(values: dict[str, Any]) -> None:
    """NaN and infinity compare false with every bound, so they are refused before any bound is looked at."""
    for key, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise RecipeError(f"{key} is {number}; it must be a finite number.")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        RecipeError: It cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not a readable TOML file: {error}") from error

"""A recipe as a TOML file that ``load_recipe`` reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..storage.files import write_bytes
from ..storage.ownership import signed
from . import Recipe

__all__ = ["recipe_toml", "write_recipe"]


def recipe_toml(recipe: Recipe, comment: str) -> str:
    """Return the TOML text of a recipe; its name is the name of the file.

    Args:
        recipe: Any recipe.
        comment: Lines above it.
    """
    document = {key: value for key, value in recipe.to_dict().items() if key != "name"}
    lines = [f"# {line}" for line in comment.splitlines()]
    _table(lines, "", document)
    return "\n".join(lines) + "\n"


def _table(lines: list[str], name: str, table: dict[str, Any]) -> None:
    """Values first: what follows a table's header belongs to that table."""
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if value is not None and not _is_table(value)]
    for key, value in table.items():
        if _is_table(value):
            inner = f"{name}.{key}" if name else key
            lines += ["", f"[{inner}]"]
            _table(lines, inner, value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # Unescaped, JSON strings are TOML basic strings but for DEL; true, false and numbers are the same in both.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def write_recipe(path: Path, recipe: Recipe, comment: str) -> None:
    """Write :func:`recipe_toml` to a file, atomically; the last line says that a sweep wrote it."""
    write_bytes(path, signed(recipe_toml(recipe, comment), "sweep").encode())

"""A recipe as a TOML file that ``load_recipe`` reads back."""

from __future__ import annotations

import re
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
    import tomli_w

    document = tomli_w.dumps(_known({key: value for key, value in recipe.to_dict().items() if key != "name"}))
    # The library puts each value of a list on a line of its own, and a recipe has one for every block.
    document = re.sub(r"\[\n((?:    .*,\n)+)\]", lambda found: f"[{_joined(found[1])}]", document)
    return "".join(f"# {line}\n" for line in comment.splitlines()) + document


def _known(table: dict[str, Any]) -> dict[str, Any]:
    """Without what is None, which TOML does not have."""
    return {
        key: _known(value) if isinstance(value, dict) else value for key, value in table.items() if value is not None
    }


def _joined(lines: str) -> str:
    return ", ".join(line.strip().removesuffix(",") for line in lines.splitlines())


def write_recipe(path: Path, recipe: Recipe, comment: str) -> None:
    """Write :func:`recipe_toml` to a file, atomically; the last line says that a sweep wrote it."""
    write_bytes(path, signed(recipe_toml(recipe, comment), "sweep").encode())

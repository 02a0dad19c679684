"""`evovit list`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError
from . import _options as shared
from ._console import err, out, print_json, progress

__all__ = ["list_"]


class Kind(str, Enum):
    """What can be listed."""

    recipes = "recipes"
    families = "families"
    profiles = "profiles"
    suites = "suites"
    baselines = "baselines"
    backends = "backends"
    timm = "timm"


def list_(
    what: Annotated[
        Kind | None,
        typer.Argument(
            metavar="WHAT",
            help="recipes, families, profiles, suites, baselines, backends or timm. Default: all but timm.",
        ),
    ] = None,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern such as 'evo_levit_*_384'.")
    ] = None,
    json: shared.Json = False,
) -> None:
    """List what there is to choose from: recipes, families, build profiles, suites, baselines, backends, ViTs of timm.

    Examples:
      evovit list
      evovit list recipes levit
      evovit list timm 'vit_small*'
    """
    from ..catalogue import KINDS, OPTIONS, matching

    if what is Kind.timm:
        found = {"timm": _timm(pattern)}
    else:
        found = {name: make() for name, make in KINDS.items() if what is None or name == what.value}
    if pattern is not None:
        found = {name: matching(rows, pattern) for name, rows in found.items()}
        if not any(found.values()):
            raise InputError(f"nothing is called {pattern!r} among {', '.join(found)}; all of them: evovit list")
    if json:
        print_json(found)
        return
    for name, rows in found.items():
        if rows:
            _show(f"{name} ({OPTIONS[name]})", rows)
    if what is None:
        err().print(f"ViTs of timm ({OPTIONS['timm']}): evovit list timm", style="dim", markup=False, soft_wrap=True)


def _timm(pattern: str | None) -> list[dict[str, Any]]:
    from ..catalogue import timm_models

    plain = pattern is None or any(sign in pattern for sign in "*?[")
    with progress() as bar:
        if bar.disable:  # no terminal, and it may take a minute
            err().print("looking at timm's models, each of which is made without values", style="dim", soft_wrap=True)
        task = bar.add_task("looking at timm's models", total=1)
        return timm_models(
            (pattern or "*") if plain else f"*{pattern}*",
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def _show(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = out()
    if not console.is_terminal:  # a pipe has no edge to wrap at
        console.width = max(console.width, 160)
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    numbers = {key for key in rows[0] if all(isinstance(row[key], int | float | None) for row in rows)}
    for key in rows[0]:
        side: Literal["left", "right"] = "right" if key in numbers else "left"
        table.add_column(key.replace("_", " "), justify=side, overflow="fold", no_wrap=key == "name")  # to be copied
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console.print(table)
    console.print()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{part:g}" for part in value)
    return "-" if value is None else str(value)

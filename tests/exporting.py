"""`evovit export` called by a test, errors raised as the library raises them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from evovit_deploy.cli.export import export
from evovit_deploy.errors import EvoVitError


def run(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}

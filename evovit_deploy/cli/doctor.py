"""`evovit doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ..errors import EngineError
from . import _options as shared
from ._console import out, print_json, waiting
from ._default_group import DEFAULT

if TYPE_CHECKING:
    from ..doctor import Checkup

__all__ = ["command_names", "doctor"]

COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(ctx: typer.Context, json: shared.Json = False) -> None:
    """Show what this machine has and which commands work on it; exit 4 if the essentials do not.

    Examples:
      evovit doctor
      evovit doctor --json
    """
    from ..doctor import examine
    from ..machine.extras import distribution_of

    with waiting("looking at the installed libraries"):
        diagnosis = examine(commands=command_names(ctx.find_root().command))
    if json:
        print_json(diagnosis.to_dict())
    else:
        _show(diagnosis)
    if not diagnosis.ok:
        bad = [finding for finding in diagnosis.findings if finding.essential and finding.status != "ok"]
        raise EngineError(
            f"this installation does not work: {'; '.join(f'{f.name}: {f.value}' for f in bad)}. "
            f"Reinstall it: pip install --force-reinstall {' '.join(distribution_of(f.name) for f in bad)}"
        )


def command_names(command: Any, words: str = "") -> list[str]:
    """Return every command below a group, as it is typed: ``bench report``."""
    below: dict[str, Any] | None = getattr(command, "commands", None)
    if below is None:
        return [words] if words else []
    named = ((words if name == DEFAULT else f"{words} {name}".strip(), part) for name, part in below.items())
    return [found for name, part in named for found in command_names(part, name)]


def _show(diagnosis: Checkup) -> None:
    from rich.table import Table
    from rich.text import Text

    console = out()
    found = Table(title="this machine", title_justify="left", show_header=False)
    for finding in diagnosis.findings:
        found.add_row(finding.name, Text(finding.status, COLOURS[finding.status]), Text(finding.value))
    console.print(found)
    commands = Table(title="commands", title_justify="left", show_header=False)
    for command in diagnosis.commands:
        verdict = Text("works", "green") if command.works else Text("does not", "yellow")
        commands.add_row(f"evovit {command.name}", verdict, Text(command.reason))
    console.print(commands)

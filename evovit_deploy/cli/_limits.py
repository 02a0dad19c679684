"""Options that set a limit of the service: default, bounds, unit and help come from where the limit is defined."""

from __future__ import annotations

from typing import Any

import typer

from ..serve.limits import about
from ..serve.settings import ServiceSettings

__all__ = ["ServiceSettings", "limit"]


def limit(name: str, panel: str) -> Any:
    """Return the option of a limit of :class:`ServiceSettings`; a time that has to be more than 0 is checked there, not here."""
    found = about(name, ServiceSettings)
    bounds: dict[str, Any] = {} if found.least is None else {"min": int(found.least)}
    return typer.Option(metavar=found.unit, help=found.help, rich_help_panel=panel, **bounds)

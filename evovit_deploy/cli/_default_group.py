"""A group of commands of which one needs not be named: `evovit bench MODEL` beside `evovit bench report`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["DEFAULT", "DefaultGroup"]

DEFAULT = "run"


class DefaultGroup(TyperGroup):
    """Runs :data:`DEFAULT` unless the first argument is another command of the group; also for its ``--help``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if not args or args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

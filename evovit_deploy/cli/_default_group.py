"""A group of commands of which one needs not be named: `evovit bench MODEL` beside `evovit bench report`."""

from __future__ import annotations

from typing import Any

from ._command import Group

__all__ = ["DEFAULT", "DefaultGroup"]

DEFAULT = "run"


class DefaultGroup(Group):
    """Runs :data:`DEFAULT` unless the first argument is another command of the group; also for its ``--help``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if ctx.resilient_parsing and not args:  # the shell completes the first word: a command of the group
            return super().parse_args(ctx, args)
        if not args or args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

"""The group of all commands: what ends a command before its own code could say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from ..storage.files import plain
from ._command import Group
from ._console import err

__all__ = ["RootGroup"]


INTERRUPTED = 130  # what shells make of SIGINT


class RootGroup(Group):
    """Says that Ctrl-C ended a command, and quotes wrong words of the command line so that a terminal does not obey them."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """See click."""
        with _told():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """See click."""
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        err().show_cursor()  # a progress bar hides it, and may have had no time to bring it back
        err().print("interrupted; nothing half-written was left behind.")
        raise typer.Exit(INTERRUPTED) from None
    except typer.Exit as stop:
        if stop.exit_code == INTERRUPTED:
            err().show_cursor()
        raise
    except Exception as error:
        told: Any = error
        if hasattr(told, "format_message") and isinstance(told.message, str):  # a usage error, of click or typer's copy
            told.message = plain(told.message)
        raise

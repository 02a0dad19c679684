"""What every command has beyond typer: help that wraps, flags without a type, and suggestions for a mistyped choice."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..suggest import did_you_mean

__all__ = ["Command", "Group", "wrapped"]

_WRONG_CHOICE = re.compile(r"(?:Value error, )?'(?P<word>.*)' is not one of (?P<choices>.*)\.", re.DOTALL)


class _Parameters:
    """What commands and groups share."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, help=wrapped(help), **kwargs)  # type: ignore[call-arg]

    def get_params(self, ctx: Any) -> list[Any]:
        """See click. A flag has no type to show, and an argument is explained by its name and help."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
            if param.param_type_name == "argument" and hasattr(param, "display_type_rich"):
                param.display_type_rich = _nothing
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]
        except typer.BadParameter as error:
            if found := _WRONG_CHOICE.fullmatch(error.message):
                choices = re.findall(r"'([^']*)'", found["choices"])
                hint = did_you_mean(found["word"], choices)
                error.message = f"'{found['word']}' is not one of {found['choices']}.{hint}"
            raise


class Command(_Parameters, TyperCommand):
    """A command of evovit."""


class Group(_Parameters, TyperGroup):
    """A group of commands of evovit."""


def wrapped(text: str | None) -> str | None:
    """Let the terminal wrap the paragraphs of a docstring; indented lines, which are commands to type, stay lines."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if "\n " in p else p.replace("\n", " ") for p in paragraphs)


def _nothing(ctx: Any) -> None:
    return None

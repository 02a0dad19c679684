"""What every command has beyond typer: help that wraps, flags without a type, and suggestions for a mistyped choice."""

from __future__ import annotations

import copy
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import EngineError
from ..recipes.precisions import why_not
from ..suggest import did_you_mean
from ._choices import LATE

__all__ = ["Command", "Group", "wrapped"]

_WRONG_CHOICE = re.compile(r"(?:Value error, )?'(?P<word>.*)' is not one of (?P<choices>.*)\.", re.DOTALL)
# The panel of the help that every command with several panels has; `_options.py` sorts options into it.
OUTPUT = "Output"
# Earlier spellings, by what they are called now; they still work, and help does not mention them.
RENAMED = {"--batch-size": "--batch", "--predictions": "--output", "--name": "--model-name"}


class _Parameters:
    """What commands and groups share."""

    def __init__(self, *args: Any, help: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, help=wrapped(help), **kwargs)  # type: ignore[call-arg]

    def get_params(self, ctx: Any) -> list[Any]:
        """See click. A flag has no type to show, and an argument is explained by its name and help."""
        params: list[Any] = [_settled(param) for param in super().get_params(ctx)]  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
            if "--help" in param.opts and any(getattr(p, "rich_help_panel", None) == OUTPUT for p in params):
                param.rich_help_panel = OUTPUT
            if param.param_type_name == "argument":
                if hasattr(param, "display_type_rich"):
                    param.display_type_rich = _nothing
                else:  # typer before 0.29 shows the name of the type
                    param.type = copy.copy(param.type)
                    param.type.name = ""
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        names = {name for param in self.params for name in param.opts}  # type: ignore[attr-defined]
        old = {before: now for before, now in RENAMED.items() if now in names and before not in names}
        try:
            return super().parse_args(ctx, list(_renamed(args, old)))  # type: ignore[misc, no-any-return]
        except typer.BadParameter as error:
            if found := _WRONG_CHOICE.fullmatch(error.message):
                choices = re.findall(r"'([^']*)'", found["choices"])
                hint = did_you_mean(found["word"], choices)
                why = why_not(found["word"]) if "fp16" in choices else ""
                error.message = f"'{found['word']}' is not one of {found['choices']}.{why or hint}"
            raise


class Command(_Parameters, TyperCommand):
    """A command of evovit."""

    def invoke(self, ctx: Any) -> Any:
        """See click. Without a working folder no relative path means anything, and libraries fail in ways of their own."""
        try:
            os.getcwd()
        except FileNotFoundError:
            raise EngineError("the working folder was deleted. Go to one that exists: cd ~") from None
        return super().invoke(ctx)


class Group(_Parameters, TyperGroup):
    """A group of commands of evovit."""


def wrapped(text: str | None) -> str | None:
    """Let the terminal wrap the paragraphs of a docstring; indented lines, which are commands to type, stay lines."""
    if text is None:
        return None
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if "\n " in p else p.replace("\n", " ") for p in paragraphs)


def _renamed(args: Iterable[str], old: Mapping[str, str]) -> Iterator[str]:
    """The arguments with options under their present names; what follows ``--`` is no option."""
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        yield old.get(name, name) + equals + value
        if word == "--":
            yield from words


def _settled(param: Any) -> Any:
    """The parameter, with the values that it takes now in place of a placeholder; what was declared stays."""
    if param.metavar not in LATE:
        return param
    shown = copy.copy(param)
    shown.metavar = f"<{'|'.join(LATE[param.metavar]())}>"
    return shown


def _nothing(ctx: Any) -> None:
    return None

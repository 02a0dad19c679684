"""Help is for people: examples that work as typed, panels, types with names, and one word for one thing."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.cli._command import RENAMED, wrapped

ROOT: Any = typer.main.get_command(app)
MANY = 6
# One name, more than one kind of value: these differ on purpose.
DIFFERENT = {
    "--batch": {"dynamic|N", "N", "1,8,32"},  # a kind of model, a size, sizes to measure
    "--backend": {"BACKEND", "BACKEND|all", "all|NAME,NAME"},  # one, or all, or some
    "--baseline": {"NAME", "NAME|FILE,..."},
    "--images": {"FILE|FOLDER", "FOLDER|NAME"},
    "--method": {"METHOD", "METHOD,METHOD"},  # one, or each of several
    "--output": {"FILE", "FOLDER", "FOLDER|FILE"},
    "--r": {"8|8,-1|8,8,4", "4,8,12"},  # what one model merges, values to try
    "--replicas": {"N", "N|MIN-MAX"},
}


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]


def help_of(name: str, columns: int = 100) -> str:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_is_cut_at_80_columns(name: str) -> None:
    assert "…" not in help_of(name, 80)


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_are_in_panels(name: str) -> None:
    shown = options(COMMANDS[name])
    if len(shown) <= MANY:
        return
    panels = {getattr(option, "rich_help_panel", None) for option in shown}
    assert None not in panels, [o.opts for o in shown if getattr(o, "rich_help_panel", None) is None]
    assert len(panels) >= 3
    assert "─ Options ─" not in help_of(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_types_are_words_that_people_know(name: str) -> None:
    unnamed = re.findall(
        r"<(?:str|int|float|bool|path|file|list\[\w+\])>|\b(?:TEXT|INTEGER|FLOAT|PATH|BOOLEAN)\b", help_of(name)
    )
    assert unnamed == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_how_it_is_used(name: str) -> None:
    """Its first line is a sentence, and each example is taken by the parser as it stands."""
    command = COMMANDS[name]
    assert re.match(r"[A-Z][^\n]*[.:;]", command.help), command.help
    lines = re.findall(r"^  (evovit .*)$", command.help, re.MULTILINE)
    assert lines, f"evovit {name} has no example"
    for line in lines:
        words = shlex.split(line)[1:]
        assert words[: len(name.split())] == name.split() or name == "bench run"
        arguments = words[len(name.split()) :] if name != "bench run" else words[1:]
        command.make_context(name, arguments).close()  # parses, and runs nothing


def test_every_option_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        for option in options(command):
            assert option.help, (name, option.opts)
            assert option.help.endswith((".", ")")), (name, option.opts, option.help)


def test_one_word_for_one_thing() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for command in COMMANDS.values():
        for option in options(command):
            long = next(word for word in option.opts if word.startswith("--"))
            if option.metavar:
                kinds[long].add(option.metavar)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == DIFFERENT
    names = set(kinds)
    assert not names & set(RENAMED) - {"--name"}  # earlier spellings are not in the help
    timeouts = {name for name in names if "timeout" in name}
    assert timeouts == {"--timeout", "--run-timeout", "--body-timeout", "--header-timeout", "--idle-timeout"}
    assert all(kinds[name] == {"SECONDS"} for name in timeouts)
    for name, command in COMMANDS.items():
        assert all(option.opts[-1] != "-o" or "--output" in option.opts for option in options(command)), name


@pytest.mark.parametrize(
    ("command", "arguments", "parameter", "value"),
    [
        ("predict", ("m.onnx", "a.png", "--batch-size", "3"), "batch", 3),
        ("eval", ("m.onnx", "--data", "val", "--batch-size=3"), "batch", 3),
        ("eval", ("m.onnx", "--data", "val", "--predictions", "a.csv"), "predictions", "a.csv"),
        ("package triton", ("m.onnx", "-o", "r", "--name", "digits"), "name", "digits"),
        ("package triton", ("m.onnx", "-o", "r", "--timeout-ms", "5"), "timeout_ms", 5),
        ("package triton", ("m.onnx", "-o", "r", "--max-delay-us", "5"), "max_delay_us", 5),
        ("package ray", ("m.onnx", "-o", "r", "--name", "app"), "name", "app"),
        ("predict", ("m.onnx", "--", "--batch-size"), "images", ["--batch-size"]),
    ],
)
def test_earlier_spellings_still_work(command: str, arguments: tuple[str, ...], parameter: str, value: Any) -> None:
    found = COMMANDS[command].make_context(command, list(arguments)).params[parameter]
    assert (list(map(str, found)) if isinstance(found, list | tuple) else type(value)(found)) == value


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_fits_the_terminal(columns: int) -> None:
    for name in ("export", "bench", "package kubernetes", ""):
        assert max(map(len, help_of(name, columns).splitlines())) <= columns


def test_paragraphs_wrap_and_examples_do_not() -> None:
    assert wrapped("One\n    line.\n\n    Two\n    lines.\n\n    Examples:\n      a b\n      c\n    ") == (
        "One line.\n\nTwo lines.\n\nExamples:\n  a b\n  c"
    )

"""Groups of options: a command takes a dataclass, and typer sees its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from evovit_deploy.cli._groups import grouped


@dataclass(frozen=True)
class Run:
    threads: Annotated[int, typer.Option(min=1, help="How many.")] = 2
    fast: Annotated[bool, typer.Option("--fast", help="At once.")] = False


@dataclass(frozen=True)
class Needed:
    data: Annotated[str, typer.Option(help="What.")]


def test_fields_are_options_and_come_back_as_the_group() -> None:
    calls: list[object] = []

    @grouped
    def command(model: Annotated[str, typer.Argument()], needed: Needed, run: Run, json: bool = False) -> None:
        """Do it."""
        calls.append((model, needed, run, json))

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["m", "--data", "d", "--threads", "3", "--fast", "--json"]).exit_code == 0
    assert CliRunner().invoke(app, ["m", "--data", "d"]).exit_code == 0
    assert calls == [("m", Needed("d"), Run(3, True), True), ("m", Needed("d"), Run(), False)]
    assert CliRunner().invoke(app, ["m"]).exit_code == 2  # a field without a default is required
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Do it." in shown
    assert [shown.index(name) for name in ("--data", "--threads", "--fast", "--json")] == sorted(
        shown.index(name) for name in ("--data", "--threads", "--fast", "--json")
    )


def test_two_options_of_one_name() -> None:
    def command(run: Run, threads: int = 1) -> None: ...

    with pytest.raises(TypeError, match="command has two options called threads"):
        grouped(command)

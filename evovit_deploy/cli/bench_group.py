"""`evovit bench` and its further commands."""

from __future__ import annotations

import typer

from ._default_group import DEFAULT, DefaultGroup
from .bench import bench

__all__ = ["bench_app"]

bench_app = typer.Typer(name="bench", cls=DefaultGroup, add_completion=False)
bench_app.command(name=DEFAULT)(bench)


@bench_app.callback(help="Measure latency and throughput next to the vanilla twin; make tables and pages of records.")
def _group() -> None:
    """A callback makes Typer keep the group while it has one command."""

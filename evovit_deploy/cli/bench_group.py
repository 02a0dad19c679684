"""`evovit bench` and its further commands."""

from __future__ import annotations

import typer

from ._command import Command
from ._default_group import DEFAULT, DefaultGroup
from .bench import bench
from .bench_compare import bench_compare
from .bench_report import bench_report
from .bench_serve import bench_serve

__all__ = ["bench_app"]

bench_app = typer.Typer(
    name="bench",
    cls=DefaultGroup,
    help="Measure latency and throughput next to the vanilla twin; make tables and pages of records.",
    add_completion=False,
)
for name, command in (
    (DEFAULT, bench),
    ("report", bench_report),
    ("compare", bench_compare),
    ("serve", bench_serve),
):
    bench_app.command(name=name, cls=Command)(command)

"""`evovit bench serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import _options as shared
from ._bench import command_line, measuring, print_lines, print_table
from ._console import print_json
from ._ray import stdout_is_for_results

__all__ = ["bench_serve"]

FAULTS = "Faults"


def bench_serve(
    model: Annotated[
        Path | None,
        typer.Argument(help="ONNX file or TensorRT engine. Without one, stand-ins only.", metavar="MODEL"),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=120,
            metavar="SECONDS",
            help="Length of each of three measurements, five with a model.",
            rich_help_panel=shared.RUN,
        ),
    ] = 20.0,
    clients: Annotated[
        int, typer.Option(min=1, max=256, metavar="N", help="Clients at once.", rich_help_panel=shared.RUN)
    ] = 32,
    max_batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Images per batch, in the service and called directly.",
            rich_help_panel=shared.RUN,
        ),
    ] = 8,
    provider: shared.Provider = "auto",
    threads: shared.MeasuredThreads = None,
    faults: Annotated[
        bool,
        typer.Option(
            "--faults",
            help="Overload, failing engines, storms, swap and SIGTERM instead: counts, not times.",
            rich_help_panel=FAULTS,
        ),
    ] = False,
    attack: Annotated[
        bool,
        typer.Option(
            "--attack",
            help="Clients that try to stop the service instead: liveness, memory and the time to stop.",
            rich_help_panel=FAULTS,
        ),
    ] = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="With --faults: kill a replica and a node of a Ray cluster (extra `ray`).",
            rich_help_panel=FAULTS,
        ),
    ] = False,
    record: shared.Record = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Measure what `evovit serve` adds to an engine: latency with one client, throughput with many.

    The service runs in a separate process on the loopback address, the engine in this one, and they take turns. Beside
    the model, a stand-in that waits for 20 ms shows the service alone, and one that answers at once shows its ceiling.

    Examples:
      evovit bench serve
      evovit bench serve model.onnx --record runs.jsonl
      evovit bench serve --faults
      evovit bench serve --attack
    """
    from ..bench.records import append, check_appendable
    from ..loadtest.speed import SpeedSettings, measure_speed
    from ..machine.extras import modules_of, require
    from ..machine.facts import physical_cores

    require("serve", "measuring the service", *(name for name in modules_of("serve") if name != "uvloop"))
    if record is not None:
        check_appendable(record, force=force)
    if faults and attack:
        raise InputError("--faults and --attack are two runs; choose one.")
    if faults:
        _faults(ray, record, json)
        return
    if attack and not ray:
        _attack(record, json)
        return
    if ray:
        raise InputError("--ray goes with --faults.")
    settings = SpeedSettings(
        seconds=seconds,
        clients=clients,
        max_batch=max_batch,
        provider=provider,
        threads=threads or physical_cores(),
    )
    with measuring() as tell:
        report = measure_speed(model, settings, command=command_line(), tell=tell)
    if record is not None:
        append(record, report.to_dict())
    if json:
        print_json(report.to_dict())
        return
    for table in report.tables():
        print_table(table)
    print_lines(report.lines())


def _faults(ray: bool, record: Path | None, json: bool) -> None:
    """Run every scenario, show its counts, exit 1 if one does not hold."""
    from ..bench.records import append
    from ..bench.text import Table
    from ..loadtest.faults import run_faults
    from ..loadtest.tally import FIELDS

    with stdout_is_for_results(), measuring() as tell:
        document = run_faults(ray=ray, command=command_line(), tell=tell)
    if record is not None:
        append(record, document)
    scenarios = document["scenarios"]
    if json:
        print_json(document)
    else:
        header = ("scenario", "requests", *(name.replace("_", " ") for name in FIELDS), "holds")
        rows = [
            (name, *(str(one[field]) for field in ("requests", *FIELDS)), "; ".join(one["broken"]) or "yes")
            for name, one in scenarios.items()
        ]
        print_table(Table("Load and faults: what became of every request", header, tuple(rows), group=None))
    if any(one["broken"] for one in scenarios.values()):
        raise typer.Exit(1)


def _attack(record: Path | None, json: bool) -> None:
    """Run every attack, show what it did, exit 1 if something does not hold."""
    from ..bench.records import append
    from ..bench.text import Table
    from ..loadtest.attacks import run_attacks

    with measuring() as tell:
        document = run_attacks(command=command_line(), tell=tell)
    if record is not None:
        append(record, document)
    scenarios = document["scenarios"]
    if json:
        print_json(document)
    else:
        fields = ("requests", "answered", "refused", "live_worst_s", "peak_mib", "bound_mib", "stop_s")
        header = ("attack", *(name.replace("_", " ") for name in fields), "holds")
        rows = [
            (name, *(str(one[field]) for field in fields), "; ".join(one["broken"]) or "yes")
            for name, one in scenarios.items()
        ]
        print_table(
            Table("Attacks: a good client beside them, liveness, memory, and the end", header, tuple(rows), group=None)
        )
    if any(one["broken"] for one in scenarios.values()):
        raise typer.Exit(1)

"""`evovit bench`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, UnstableMeasurement
from ._choices import Backend, Provider
from ._console import err, out, print_json, progress

if TYPE_CHECKING:
    from ..bench import BenchReport
    from ..bench.subjects import Opening

__all__ = ["bench"]

REFRESH_SECONDS = 0.5


def bench(
    model: Annotated[
        str | None,
        typer.Argument(help="ONNX file, checkpoint, or recipe name with --random-weights.", metavar="MODEL"),
    ] = None,
    engine: Annotated[
        list[Path] | None, typer.Option(help="Another model to measure in the same run; repeatable.")
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="What speedups are against. twin: vanilla DeiT, weights folded. trimmed: and the last block's dead work "
            "removed. stock: as timm ships it. none, or a file. auto: the twin, if it is known."
        ),
    ] = "auto",
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes; default 1,8, or the static batch of the model.")
    ] = None,
    provider: Annotated[Provider, typer.Option(help="auto: CUDA where it works, else the CPU.")] = Provider.auto,
    backend: Annotated[
        Backend,
        typer.Option(help="auto: ONNX Runtime (a checkpoint is exported first). pytorch: eager, checkpoints only."),
    ] = Backend.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the cores of this machine.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or TOML file for a checkpoint or --random-weights.")
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="No checkpoint: MODEL is a recipe.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="2 s and 20 calls a row instead of 10 s and 500.")] = False,
    min_seconds: Annotated[float | None, typer.Option(min=0, help="Seconds to measure each row, at least.")] = None,
    min_calls: Annotated[int | None, typer.Option(min=1, help="Calls to measure each row, at least.")] = None,
    record: Annotated[Path | None, typer.Option(help="Append the result as one JSON line to this file.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 5 when a measurement did not settle.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure latency and throughput next to the vanilla twin, in one interleaved run."""
    from ..bench import Settings, benchmark
    from ..bench.environment import physical_cores
    from ..bench.records import append, check_appendable
    from ..bench.subjects import Opening

    threads = threads or physical_cores()
    batches = None if batch is None else _batches(batch)
    if record is not None:
        check_appendable(record)
    seconds = min_seconds if min_seconds is not None else 2.0 if quick else 10.0
    calls = min_calls if min_calls is not None else 20 if quick else 500
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evovit-bench-")))
        opening = Opening(stack, folder, backend.value, provider.value, threads)
        with progress() as bar:
            task = bar.add_task("opening", total=None)
            opening.step = lambda text: bar.update(task, description=text)
            _open_all(opening, model, engine or [], recipe, random_weights)
            against = opening.baseline(baseline)
        static = next((e.spec.batch for e in opening.engines.values() if e.spec.batch is not None), None)
        settings = Settings(
            batches or ((1, 8) if static is None else (static,)), seconds, calls, max_seconds=max(60.0, 3 * seconds)
        )
        with measuring() as update:
            report = benchmark(
                opening.engines,
                settings,
                baseline=against,
                threads=threads,
                notes=opening.notes,
                on_progress=update,
            )
    if json:
        print_json(report.to_dict())
    else:
        _show(report)
    if record is not None:
        if report.interrupted:
            err().print(f"interrupted, so nothing was added to {record}", soft_wrap=True, markup=False)
        else:
            append(record, report.to_dict())
    if report.interrupted:
        raise typer.Exit(130)
    if strict and not report.stable:
        rows = ", ".join(f"{p.subject} at batch {p.batch}" for p in report.unstable)
        raise UnstableMeasurement(
            f"the measurement did not settle: {rows}. Close other programs, give it longer (--min-seconds 30), or fewer "
            f"threads (--threads)."
        )


def _open_all(
    opening: Opening, model: str | None, others: list[Path], recipe: str | None, random_weights: bool
) -> None:
    """Open what was asked for, MODEL first."""
    from ..recipes import recipe_names

    if random_weights:
        if (model is None) == (recipe is None):
            raise InputError(
                "--random-weights needs one recipe: evovit bench evo_deit_small_patch16_224 --random-weights"
            )
        opening.checkpoint(None, model or recipe)
    elif model is not None:
        if model in recipe_names() and not Path(model).is_file():
            raise InputError(f"{model} is a recipe. Give a checkpoint or an ONNX file, or add --random-weights.")
        opening.file(Path(model), recipe)
    for path in others:
        opening.file(path, None)
    if opening.first is None:
        raise InputError("nothing to measure: give an ONNX file, a checkpoint, or a recipe with --random-weights.")


def _batches(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--batch {text!r} is not a list of numbers from 1; for example: --batch 1,8,32")
    return tuple(dict.fromkeys(int(part) for part in parts))


@contextmanager
def measuring() -> Iterator[Callable[[float, str], None]]:
    """A progress bar that is drawn between measured calls only: a drawing thread would disturb what is measured."""
    bar = progress()
    bar.live.auto_refresh = False
    task = bar.add_task("measuring", total=100)
    last = 0.0

    def update(share: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REFRESH_SECONDS or share >= 1:
            bar.update(task, completed=100 * share, description=text)
            bar.refresh()
            last = now

    with bar:
        yield update


def _show(report: BenchReport) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..bench.text import lines, tables

    console = out()
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a log or a pipe has no edge to wrap at
    for found in tables(report):
        table = Table(title=found.title, title_justify="left")
        for name in found.header:
            table.add_column(name, justify="left" if name in found.left else "right", no_wrap=True, overflow="fold")
        for above, row in zip([None, *found.rows], found.rows):
            if above is not None and above[0] != row[0]:
                table.add_section()
            table.add_row(*(Text(cell) for cell in row))  # not markup: a file name may hold brackets
        console.print(table)
    for line in lines(report):
        console.print(line, soft_wrap=True, markup=False)

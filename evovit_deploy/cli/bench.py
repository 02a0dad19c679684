"""`evovit bench`, also as `evovit bench run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EvoVitError, InputError, UnstableMeasurement
from ..storage.missing import no_such_file
from . import _completion as complete
from . import _options as shared
from ._bench import command_line, measuring, print_report, print_summary
from ._choices import Arrivals, ClassOrder, Precision
from ._console import err, print_json
from ._values import duration, numbers

if TYPE_CHECKING:
    from ..bench import BenchReport
    from ..bench.session import Options
    from ..bench.settings import Settings
    from ..bench.suites import Suite

__all__ = ["bench"]

MODELS, METHOD, MORE = "Models", "Method", "Beside latency"
QUICK = {"min_seconds": 2.0, "min_calls": 20, "max_seconds": 10.0, "warmup_calls": 10, "warmup_limit": 2.0}


def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Checkpoint, ONNX file or TensorRT engine; or a recipe with --random-weights.", metavar="MODEL"
        ),
    ] = None,
    engine: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Another model for the same run, repeatable.", rich_help_panel=MODELS),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete.suites,
            help="Suite: a name such as quick or paper (see `evovit list suites`), or a TOML file.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete.measured_against,
            help="What speedups are relative to. twin: vanilla DeiT or LeViT, folded. trimmed: the last block's dead work left "
            "out too. stock: as timm ships it. none, or a model file. auto: the twin, if it is known.",
            show_default="auto",
            rich_help_panel=MODELS,
        ),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="MODEL is a recipe, not a file.", rich_help_panel=MODELS)
    ] = False,
    recipe: shared.Recipe = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of a checkpoint or recipe; a file has its own. Default: fp32.",
            rich_help_panel=shared.CHECKPOINT,
        ),
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Folder of images, or sample (eight photographs), synthetic or noise. With folders named by class, accuracy is "
            "measured too.",
            rich_help_panel=shared.DATA,
        ),
    ] = "sample",
    labels: shared.Labels = None,
    class_order: shared.ClassOrder = ClassOrder.auto,
    preprocess: Annotated[
        bool,
        typer.Option("--preprocess", help="Also time reading and resizing the images.", rich_help_panel=shared.DATA),
    ] = False,
    backend: Annotated[
        str,
        typer.Option(
            **shared.BACKEND,
            help="auto: chosen by the file's suffix; a checkpoint is exported to ONNX first. pytorch, compile: checkpoints and "
            "recipes only. tensorrt, tensorrt-rtx: built on the spot.",
            rich_help_panel=shared.RUN,
        ),
    ] = "auto",
    provider: shared.Provider = "auto",
    threads: shared.MeasuredThreads = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="1,8,32",
            help="Batch sizes. Default: 1,8, or the static batch of the model.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look: 2 s and 20 calls per row, at most 10 s.", rich_help_panel=METHOD),
    ] = False,
    min_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Measure each row at least this long. Default: 10.", rich_help_panel=METHOD
        ),
    ] = None,
    min_calls: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Measure at least this many calls per row. Default: 500.", rich_help_panel=METHOD
        ),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="End a row here even if it has fewer calls. Default: 60.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Warm up each row at least this long. Default: 0.5, and 50 calls.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Throughput with this many callers at once.", rich_help_panel=MORE),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Latency under load: batches requested per second.", rich_help_panel=MORE),
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option(help="How those requests are spaced.", rich_help_panel=MORE)
    ] = Arrivals.poisson,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Pick the batch for a latency such as 5ms or 0.1s.", rich_help_panel=MORE),
    ] = None,
    record: shared.Record = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 5 if a measurement did not settle.", rich_help_panel=shared.OUTPUT),
    ] = False,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Measure latency and throughput next to the vanilla twin, in one interleaved run.

    Also: `evovit bench report` makes tables, plots and a page of records, `evovit bench compare` finds regressions, and
    `evovit bench serve` measures the service.

    Examples:
      evovit bench model.onnx
      evovit bench ckpt.pth --batch 1,8,32 --record runs.jsonl
      evovit bench evo_deit_small_patch16_224 --random-weights --backend pytorch --quick
    """
    from ..bench.records import append, check_appendable
    from ..bench.session import Options, run
    from ..bench.suites import load_suite
    from ..machine.facts import physical_cores

    threads = threads or physical_cores()
    budget_ms = None if budget is None else duration(budget)
    found = None if suite is None else load_suite(suite)
    given = {
        "batches": None if batch is None else numbers("--batch", batch),
        "streams": None if streams is None else numbers("--streams", streams),
        "min_seconds": min_seconds,
        "min_calls": min_calls,
        "max_seconds": max_seconds,
        "warmup_seconds": warmup,
        "rate": rate,
        "arrivals": arrivals.value,
    }
    settings = _settings(None if found is None else found.settings, quick, given)
    if labels is not None and not labels.exists():  # now, not after a checkpoint was exported
        raise no_such_file(labels, InputError, "It should hold the labels.")
    if record is not None:
        check_appendable(record, force=force)
    options = Options(
        backend=backend,
        provider=provider,
        threads=threads,
        precision=None if precision is None else precision.value,
        settings=settings,
        batches_given=batch is not None or found is not None,
        images=images,
        labels=labels,
        class_order=class_order.order,
        preprocess=preprocess,
        peaks=not quick,
        command=command_line(),
        suite="" if found is None else found.name,
    )
    asked = _asked(options, model, engine or [], recipe, random_weights, baseline)
    runs = [asked] if asked is not None else _suite_runs(options, found, baseline)
    reports: list[BenchReport] = []
    failure: BaseException | None = None
    with measuring() as update:
        for number, one in enumerate(runs):

            def told(share: float, text: str, number: int = number, one: Options = one) -> None:
                name = f"{one.recipe}: " if len(runs) > 1 else ""
                update((number + share) / len(runs), name + text)

            try:
                report = run(one, told)
            except (EvoVitError, KeyboardInterrupt) as error:  # what a suite measured until here is not lost
                failure = error
                break
            reports.append(report)
            if record is not None and report.points:
                append(record, report.to_dict())
            if report.interrupted:
                break
    if reports:
        print_reports(reports, budget_ms, json)
    if failure is not None:
        raise failure
    if reports[-1].interrupted:
        if record is not None and reports[-1].points:
            err().print(f"interrupted; what was measured is in {record}, marked so", soft_wrap=True, markup=False)
        raise typer.Exit(130)
    unstable = [f"{p.subject} at batch {p.batch}" for report in reports for p in report.unstable]
    if strict and unstable:
        raise UnstableMeasurement(
            f"the measurement did not settle: {', '.join(unstable)}. Close other programs, give it longer (--min-seconds 30), "
            f"or fewer threads (--threads)."
        )


def print_reports(reports: list[BenchReport], budget_ms: float | None, as_json: bool) -> None:
    """Print tables, or one JSON document: of the run, or a list of runs for a suite."""
    from ..bench.answers import answers

    if not as_json:
        print_summary(reports)
        for report in reports:
            print_report(report, budget_ms)
        return
    documents = [
        {**report.to_dict(), "answers": [dataclasses.asdict(answer) for answer in answers(report, budget_ms)]}
        for report in reports
    ]
    if len(documents) == 1 and not reports[0].suite:
        print_json(documents[0])
    else:
        print_json({"suite": reports[0].suite, "runs": documents})


def _settings(base: Settings | None, quick: bool, given: Mapping[str, object]) -> Settings:
    """The suite's or the default settings, shortened by --quick, overruled by what was typed."""
    from ..bench.settings import Settings

    typed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = {**dataclasses.asdict(base or Settings()), **(QUICK if quick else {}), **typed}
    if "max_seconds" not in typed:  # longer measurements are not cut off by a limit that was meant for shorter ones
        values["max_seconds"] = max(values["max_seconds"], 3 * typed.get("min_seconds", 0))
    return Settings(**values)


def _asked(
    options: Options,
    model: str | None,
    others: list[Path],
    recipe: str | None,
    random_weights: bool,
    baseline: str | None,
) -> Options | None:
    """The run of what was asked for by name; None if nothing was, which leaves a suite's own models."""
    from ..engines.registry import is_exported
    from ..recipes import recipe_names

    options = dataclasses.replace(options, others=tuple(others), baseline=baseline or "auto")
    if random_weights:
        if (model is None) == (recipe is None):
            raise InputError(
                "--random-weights needs one recipe: evovit bench evo_deit_small_patch16_224 --random-weights"
            )
        return dataclasses.replace(options, recipe=model or recipe)
    if model is None and not others:
        return None
    if model is not None and model in recipe_names() and not Path(model).is_file():
        raise InputError(f"{model} is a recipe. Give a checkpoint or an ONNX file, or add --random-weights.")
    files = [*([Path(model)] if model is not None else []), *others]
    if options.precision is not None and all(map(is_exported, files)):
        raise InputError(
            f"--precision {options.precision} is for checkpoints and recipes; {files[0].name} has the precision it was exported "
            f"with. Export it again: evovit export CKPT --precision {options.precision}"
        )
    if model is None:
        return options
    return dataclasses.replace(options, model=Path(model), recipe=recipe)


def _suite_runs(options: Options, suite: Suite | None, baseline: str | None) -> list[Options]:
    """A run for each model of a suite."""
    if suite is None:
        raise InputError(
            "nothing to measure: give an ONNX file, a checkpoint, a recipe with --random-weights, or --suite."
        )
    return [
        dataclasses.replace(options, recipe=g.recipe, selections=g.selections, baseline=baseline or g.baseline)
        for g in suite.groups
    ]

"""`evovit bench`, also as `evovit bench run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EvoVitError, InputError, UnstableMeasurement
from ._bench import command_line, duration, measuring, numbers, print_report, print_summary
from ._choices import Arrivals, ClassOrder, Force, MeasuredBackend, Precision, Provider
from ._console import err, print_json

if TYPE_CHECKING:
    from ..bench import BenchReport
    from ..bench.session import Models
    from ..bench.settings import Settings
    from ..bench.suites import Suite

__all__ = ["bench"]

MODELS, METHOD, MORE, OUTPUT = "What is measured", "How", "Beside latency", "Output"
QUICK = {"min_seconds": 2.0, "min_calls": 20, "max_seconds": 10.0, "warmup_calls": 10, "warmup_limit": 2.0}


def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            help="ONNX file, TensorRT engine, checkpoint, or recipe name with --random-weights.", metavar="MODEL"
        ),
    ] = None,
    engine: Annotated[
        list[Path] | None,
        typer.Option(help="Another model to measure in the same run; repeatable.", rich_help_panel=MODELS),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="quick, paper, latency, throughput, selection, or a TOML file.", rich_help_panel=MODELS),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="What speedups are against. twin: vanilla DeiT or LeViT, folded. trimmed: and the last block's dead work "
            "removed. stock: as timm ships it. none, or a file. auto: the twin, if it is known.",
            show_default="auto",
            rich_help_panel=MODELS,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe name or TOML file for a checkpoint or --random-weights.", rich_help_panel=MODELS),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="No checkpoint: MODEL is a recipe.", rich_help_panel=MODELS)
    ] = False,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of a checkpoint or recipe; default fp32. A file has its own.", rich_help_panel=MODELS),
    ] = None,
    backend: Annotated[
        MeasuredBackend,
        typer.Option(
            help="auto: ONNX Runtime, or by the file's suffix (a checkpoint is exported first). pytorch, compile: checkpoints "
            "and recipes only. tensorrt, tensorrt-rtx: built on the spot.",
            rich_help_panel=MODELS,
        ),
    ] = MeasuredBackend.auto,
    provider: Annotated[
        Provider, typer.Option(help="auto: CUDA where it works, else the CPU.", rich_help_panel=MODELS)
    ] = Provider.auto,
    images: Annotated[
        str,
        typer.Option(
            help="Folder of images, or sample (eight photographs), synthetic, noise. Folders named by class: accuracy is "
            "measured too.",
            rich_help_panel=MODELS,
        ),
    ] = "sample",
    labels: Annotated[
        Path | None, typer.Option(help="Class names, if the folders are named by these.", rich_help_panel=MODELS)
    ] = None,
    class_order: Annotated[
        ClassOrder, typer.Option(help="How training numbered the folders, as for eval.", rich_help_panel=MODELS)
    ] = ClassOrder.auto,
    batch: Annotated[
        str | None,
        typer.Option(help="Batch sizes; default 1,8, or the static batch of the model.", rich_help_panel=METHOD),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; default: the cores of this machine.", rich_help_panel=METHOD),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A look: 2 s and 20 calls a row, 10 s at most.", rich_help_panel=METHOD),
    ] = False,
    min_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to measure each row, at least; default 10.", rich_help_panel=METHOD),
    ] = None,
    min_calls: Annotated[
        int | None,
        typer.Option(min=1, help="Calls to measure each row, at least; default 500.", rich_help_panel=METHOD),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="A row ends here even without its calls; default 60.", rich_help_panel=METHOD),
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds to run before each row, at least; default 0.5 and 50 calls.", rich_help_panel=METHOD
        ),
    ] = None,
    streams: Annotated[
        str | None, typer.Option(help="Throughput with so many callers at once, e.g. 1,2,4.", rich_help_panel=MORE)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Latency under load: requests a second, each a batch.", rich_help_panel=MORE)
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option(help="How those requests are spaced.", rich_help_panel=MORE)
    ] = Arrivals.poisson,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Time reading and resizing the images too.", rich_help_panel=MORE)
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="The batch to pick for a latency, e.g. 5ms or 0.1s.", rich_help_panel=MORE),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append the result as a JSON line a run to this file.", rich_help_panel=OUTPUT),
    ] = None,
    force: Force = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 5 when a measurement did not settle.", rich_help_panel=OUTPUT)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Measure latency and throughput next to the vanilla twin, in one interleaved run.

    Further: `evovit bench report` makes tables, plots and a page of records, `evovit bench compare` finds regressions.
    """
    from ..bench.environment import physical_cores
    from ..bench.records import append, check_appendable
    from ..bench.route import Route
    from ..bench.session import Options, run
    from ..bench.suites import load_suite
    from ..export import ExportOptions
    from ..models.evo_deit import ModelOptions

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
    if record is not None:
        check_appendable(record, force=force)
    options = Options(
        settings,
        Route(
            backend.value,
            provider.value,
            threads,
            settings.batches,
            settings.batches[:1] if settings.until_flat else None,  # the largest may not fit into the memory
            None if precision is None else ExportOptions(ModelOptions(precision=precision.value)),
        ),
        images,
        labels,
        class_order.order,
        batches_given=batch is not None or found is not None,
        preprocess=preprocess,
        peaks=not quick,
        command=command_line(),
        suite="" if found is None else found.name,
    )
    asked = _models(model, engine or [], recipe, random_weights, baseline, precision)
    groups = [asked] if asked is not None else _suite_models(found, baseline)
    reports: list[BenchReport] = []
    failure: BaseException | None = None
    with measuring() as update:
        for number, models in enumerate(groups):

            def told(share: float, text: str, number: int = number, models: Models = models) -> None:
                name = f"{models.recipe}: " if len(groups) > 1 else ""
                update((number + share) / len(groups), name + text)

            try:
                report = run(models, options, told)
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
    """Tables, or one JSON document: the run's own, or a list of runs for a suite."""
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


def _models(
    model: str | None,
    others: list[Path],
    recipe: str | None,
    random_weights: bool,
    baseline: str | None,
    precision: Precision | None,
) -> Models | None:
    """What was asked for by name; None if nothing was, which leaves a suite's own models."""
    from ..bench.session import Models
    from ..bench.subjects import EXPORTED
    from ..recipes import recipe_names

    against = baseline or "auto"
    if random_weights:
        if (model is None) == (recipe is None):
            raise InputError(
                "--random-weights needs one recipe: evovit bench evo_deit_small_patch16_224 --random-weights"
            )
        return Models(None, tuple(others), model or recipe, baseline=against)
    if model is None and not others:
        return None
    if model is not None and model in recipe_names() and not Path(model).is_file():
        raise InputError(f"{model} is a recipe. Give a checkpoint or an ONNX file, or add --random-weights.")
    files = [*([Path(model)] if model is not None else []), *others]
    if precision is not None and all(path.suffix in EXPORTED for path in files):
        raise InputError(
            f"--precision {precision.value} is for checkpoints and recipes; {files[0].name} has the precision it was exported "
            f"with. Export it again: evovit export CKPT --precision {precision.value}"
        )
    if model is None:
        return Models(None, tuple(others), baseline=against)
    return Models(Path(model), tuple(others), recipe, baseline=against)


def _suite_models(suite: Suite | None, baseline: str | None) -> list[Models]:
    """The models of a suite, a run each."""
    from ..bench.session import Models

    if suite is None:
        raise InputError(
            "nothing to measure: give an ONNX file, a checkpoint, a recipe with --random-weights, or --suite."
        )
    return [Models(None, (), g.recipe, g.selections, baseline or g.baseline) for g in suite.groups]

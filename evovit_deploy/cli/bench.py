"""`evovit bench`, also as `evovit bench run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _completion as complete
from . import _options as shared
from ._bench import command_line, measuring, print_report, print_summary
from ._choices import Arrivals, ClassOrder, ImageInput, Precision, one_of
from ._console import err, note, print_json
from ._groups import grouped
from ._shared import Understood
from ._values import duration, numbers, word

if TYPE_CHECKING:
    from ..bench.runs import Measured

__all__ = ["bench"]

MODELS, METHOD, MORE = "Models", "Method", "Beside latency"


@dataclass(frozen=True)
class Models:
    """What is measured beside the model."""

    engine: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Another model for the same run, repeatable.", rich_help_panel=MODELS),
    ] = None
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete.suites,
            help="Suite: a name such as quick or paper (see `evovit list suites`), or a TOML file.",
            rich_help_panel=MODELS,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE,...",
            autocompletion=complete.measured_against,
            help="What speedups are relative to. twin: vanilla DeiT or LeViT, folded. trimmed: the last block's dead work left "
            "out too. stock: as timm ships it. stock-compiled: that through torch.compile, whatever the model runs in. none, or "
            "a model file. auto: the twin, if it is known. Several between commas.",
            show_default="auto",
            rich_help_panel=MODELS,
        ),
    ] = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="MODEL is a recipe, not a file.", rich_help_panel=MODELS)
    ] = False
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of a checkpoint or recipe; a file has its own. Default: fp32.",
            rich_help_panel=shared.CHECKPOINT,
        ),
    ] = None
    input_: Annotated[
        ImageInput | None,
        typer.Option(
            "--input",
            help="What a checkpoint or recipe takes; a file has its own. Default: uint8 on a GPU, else float32.",
            rich_help_panel=shared.CHECKPOINT,
        ),
    ] = None


@dataclass(frozen=True)
class Images:
    """What the models are called with."""

    images: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Folder of images, or sample (eight photographs), synthetic or noise. With folders named by class, accuracy is "
            "measured too.",
            rich_help_panel=shared.DATA,
        ),
    ] = "sample"
    labels: shared.Labels = None
    class_order: shared.ClassOrder = ClassOrder.auto
    preprocess: Annotated[
        bool,
        typer.Option("--preprocess", help="Also time reading and resizing the images.", rich_help_panel=shared.DATA),
    ] = False


@dataclass(frozen=True)
class Runs:
    """What the models run on."""

    backend: Annotated[
        str,
        typer.Option(
            parser=one_of("BACKEND|all"),
            metavar="BACKEND|all",
            autocompletion=complete.backends_and_all,
            help="auto: chosen by the file's suffix; a checkpoint is exported to ONNX first. pytorch, compile: checkpoints and "
            "recipes only. tensorrt, tensorrt-rtx, inductor: built on the spot. all: every one that works here, a run each.",
            rich_help_panel=shared.RUN,
        ),
    ] = "auto"
    provider: shared.Provider = "auto"
    threads: shared.MeasuredThreads = None


@dataclass(frozen=True)
class Method:
    """How it is measured."""

    batch: Annotated[
        str | None,
        typer.Option(
            metavar="1,8,32",
            help="Batch sizes. Default: 1,8, or the static batch of the model.",
            rich_help_panel=METHOD,
        ),
    ] = None
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look: 2 s and 20 calls per row, at most 10 s.", rich_help_panel=METHOD),
    ] = False
    min_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Measure each row at least this long. Default: 10.", rich_help_panel=METHOD
        ),
    ] = None
    min_calls: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Measure at least this many calls per row. Default: 500.", rich_help_panel=METHOD
        ),
    ] = None
    max_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="End a row here even if it has fewer calls. Default: 60.",
            rich_help_panel=METHOD,
        ),
    ] = None
    warmup: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Warm up each row at least this long. Default: 0.5, and 50 calls.",
            rich_help_panel=METHOD,
        ),
    ] = None
    streams: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Throughput with this many callers at once.", rich_help_panel=MORE),
    ] = None
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Latency under load: batches requested per second.", rich_help_panel=MORE),
    ] = None
    arrivals: Annotated[Arrivals, typer.Option(help="How those requests are spaced.", rich_help_panel=MORE)] = (
        Arrivals.poisson
    )
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Pick the batch for a latency such as 5ms or 0.1s.", rich_help_panel=MORE),
    ] = None

    def fields(self) -> dict[str, Any]:
        """Return what overrules a suite, under the names of the library; None was not given."""
        return {
            "batches": None if self.batch is None else numbers("--batch", self.batch),
            "streams": None if self.streams is None else numbers("--streams", self.streams),
            "min_seconds": self.min_seconds,
            "min_calls": self.min_calls,
            "max_seconds": self.max_seconds,
            "warmup_seconds": self.warmup,
            "rate": self.rate,
            "arrivals": self.arrivals.value,
        }


@grouped
def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Checkpoint, ONNX file or TensorRT engine; or a recipe with --random-weights.", metavar="MODEL"
        ),
    ] = None,
    *,
    models: Models,
    understood: Understood,
    data: Images,
    runs: Runs,
    method: Method,
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
    from ..bench.runs import BenchOptions, measure

    budget = None if method.budget is None else duration("--budget", method.budget, "5ms")
    options = BenchOptions(
        model=model,
        others=tuple(models.engine or ()),
        suite=models.suite,
        baseline=models.baseline,
        random_weights=models.random_weights,
        checkpoint=understood.options(),
        precision=word(models.precision),
        input=word(models.input_),
        backend=runs.backend,
        provider=runs.provider,
        threads=runs.threads,
        settings=method.fields(),
        quick=method.quick,
        images=data.images,
        labels=data.labels,
        class_order=data.class_order.order,
        preprocess=data.preprocess,
        record=record,
        force=force,
        command=command_line(),
    )
    with measuring() as update:
        measured = measure(options, update)
    for name, why in measured.left_out.items():
        note(f"{name} was not measured: {why}")
    _show(measured, budget, json)
    if measured.failure is not None:
        raise measured.failure
    if measured.interrupted:
        if record is not None and measured.reports[-1].points:
            err().print(f"interrupted; what was measured is in {record}, marked so", soft_wrap=True, markup=False)
        raise typer.Exit(130)
    if strict:
        measured.check_settled()


def _show(measured: Measured, budget_ms: float | None, as_json: bool) -> None:
    """Print tables, or one JSON document; nothing where nothing was measured."""
    if not measured.reports:
        return
    if as_json:
        print_json(measured.to_dict(budget_ms))
        return
    reports = list(measured.reports)
    print_summary(reports)
    for report in reports:
        print_report(report, budget_ms)

"""`evovit sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..storage.files import printable
from . import _options as shared
from ._bench import print_table
from ._choices import ClassOrder, Precision
from ._console import err, note, out, print_json, progress, warn
from ._groups import grouped
from ._values import duration, ratios

if TYPE_CHECKING:
    from ..checkpoint.options import CheckpointOptions
    from ..sweep import SweepSettings
    from ..sweep.files import SweepResult
    from ..sweep.runner import SearchLimits

__all__ = ["sweep"]

CANDIDATES, SEARCH = "Candidates", "Search"


class Schedules(str, Enum):
    """Which schedules are tried."""

    stage = "stage"
    layer = "layer"
    both = "both"


@dataclass(frozen=True)
class Tried:
    """Which candidates there are, and which is picked."""

    ratios: Annotated[str, typer.Option(metavar="0.3,0.5", help="Keep ratios to try.", rich_help_panel=CANDIDATES)] = (
        "0.3,0.5,0.7,0.9"
    )
    per_stage: Annotated[
        bool,
        typer.Option(
            "--per-stage",
            help="Try every combination of them over the stages, not one ratio for all.",
            rich_help_panel=CANDIDATES,
        ),
    ] = False
    schedule: Annotated[Schedules, typer.Option(help="Schedules to try.", rich_help_panel=CANDIDATES)] = Schedules.stage
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Pick the most accurate candidate within this latency per call, such as 5ms.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Pick the fastest candidate that loses at most this many percentage points.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None

    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Go on from the best of them, a step at a time: other ratios in other stages, and where stages begin.",
            rich_help_panel=SEARCH,
        ),
    ] = False
    tries: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, metavar="N", help="Schedules to try in all. Default: 30.", rich_help_panel=SEARCH
        ),
    ] = None
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin no schedule after so long, such as 10m; the same command goes on.",
            rich_help_panel=SEARCH,
        ),
    ] = None

    @property
    def limits(self) -> SearchLimits | None:
        """When the search ends; None without one."""
        from ..sweep.runner import SearchLimits

        if not self.search:
            if given := next((name for name in ("tries", "time") if getattr(self, name) is not None), None):
                raise InputError(f"--{given} is for a search of schedules. Add --search, or leave it out.")
            return None
        seconds = None if self.time is None else duration("--time", self.time, "10m") / 1000
        return SearchLimits(seconds=seconds) if self.tries is None else SearchLimits(self.tries, seconds)

    @property
    def schedules(self) -> tuple[str, ...]:
        """The schedules to try."""
        return ("stage", "layer") if self.schedule is Schedules.both else (self.schedule.value,)


@dataclass(frozen=True)
class Measured:
    """How candidates are run."""

    precision: Annotated[Precision, typer.Option(help="Weights and activations.", rich_help_panel=shared.RUN)] = (
        Precision.fp32
    )
    backend: Annotated[
        str,
        typer.Option(
            **shared.BACKEND,
            help="What runs the candidates, as for bench; a TensorRT engine is built for --batch.",
            rich_help_panel=shared.RUN,
        ),
    ] = "auto"
    batch: shared.Batch = 1
    provider: shared.Provider = "auto"
    threads: shared.MeasuredThreads = None
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Measure 1 s and 20 calls per candidate instead of 5 s and 50.",
            rich_help_panel=shared.RUN,
        ),
    ] = False
    restart: shared.Restart = False
    workers: shared.Workers = None

    def settings(self) -> SweepSettings:
        """Return them as the library takes them."""
        from ..machine.facts import physical_cores
        from ..sweep import SweepSettings

        return SweepSettings(
            precision=self.precision.value,
            backend=self.backend,
            provider=self.provider,
            threads=self.threads or physical_cores(),
            batch=self.batch,
            min_seconds=1.0 if self.quick else 5.0,
            min_calls=20 if self.quick else 50,
            workers=self.workers,
        )


@dataclass(frozen=True)
class Source:
    """How the checkpoint is understood; its keep ratios and schedule are what is tried."""

    recipe: shared.Recipe = None
    num_heads: shared.NumHeads = None
    ema: shared.Ema = False
    img_size: shared.ImgSize = None
    from_timm: shared.FromTimm = None
    method: shared.Method = None
    weights: shared.TimmWeights = None

    def options(self) -> CheckpointOptions:
        """Return them as the library takes them."""
        from ..checkpoint.options import CheckpointOptions

        return CheckpointOptions(
            self.recipe,
            num_heads=self.num_heads,
            image_size=self.img_size,
            ema=self.ema,
            from_timm=self.from_timm,
            method=self.method,
        )


@grouped
def sweep(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Images as for eval. Without labels, agreement with the full model stands in for accuracy.",
            rich_help_panel=shared.DATA,
        ),
    ],
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT", help="Checkpoint: .pth, .pt, .bin or .safetensors.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for models, records, plot and recipe; what is there already is reused.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = Path("sweep"),
    *,
    tried: Tried,
    labels: shared.Labels = None,
    class_order: shared.ClassOrder = ClassOrder.auto,
    measured: Measured,
    source: Source,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Try keep ratios and schedules: speed beside accuracy as table and plot, and the recipe to deploy.

    Examples:
      evovit sweep ckpt.pth --data val/ --max-drop 1
      evovit sweep ckpt.pth --data val/ --ratios 0.5,0.7 --per-stage --budget 5ms
      evovit sweep ckpt.pth --data val/ --search --max-drop 1 --time 10m
      evovit sweep --from-timm vit_small_patch16_224 --weights vit.pth --data val/
    """
    from ..sweep.files import SweepOptions, sweep_files

    if (checkpoint is None) == (source.from_timm is None) or (source.from_timm is None and source.weights is not None):
        raise InputError("give a checkpoint, or --from-timm NAME and its --weights FILE.")
    options = SweepOptions(
        checkpoint=source.options(),
        ratios=ratios("--ratios", tried.ratios, "0.3,0.5,0.7"),
        per_stage=tried.per_stage,
        schedules=tried.schedules,
        budget_ms=None if tried.budget is None else duration("--budget", tried.budget, "5ms"),
        max_drop=tried.max_drop,
        settings=measured.settings(),
        labels=labels,
        class_order=class_order.order,
        folder=output,
        restart=measured.restart,
        force=force,
        search=tried.limits,
    )
    try:
        with progress() as bar:
            task = bar.add_task("sweeping", total=1)
            result = sweep_files(
                checkpoint or source.weights,
                data,
                options,
                note=lambda text: note(text, bar),
                warn=lambda text: warn(text, bar),
                on_step=lambda text, share: bar.update(task, description=text, completed=share),
            )
    except KeyboardInterrupt:
        text = f"interrupted; what is done is in {printable(output)}: the same command resumes there."
        err().print(text, markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if not result.stable:
        note("some measurements did not settle: close other programs, leave out --quick, and run again with --restart")
    if json:
        print_json(result.to_dict())
    else:
        given = checkpoint or source.weights
        _show(result, f"--from-timm {source.from_timm}" if given is None else printable(given))


def _show(result: SweepResult, exported: str) -> None:
    """Print the table, what was picked, and on stderr the files that were written besides."""
    print_table(result.shown)
    for path in filter(None, (result.plot, result.table)):
        err().print(f"wrote {printable(path)}", markup=False, soft_wrap=True)
    if result.picked is not None and result.recipe is not None:
        recipe = printable(result.recipe)
        out().print(f"picked {result.picked.name}: {recipe}", markup=False, soft_wrap=True)
        out().print(f"next: evovit export {exported} --recipe {recipe}", markup=False, soft_wrap=True)

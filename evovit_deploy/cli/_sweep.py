"""Options of `evovit sweep`, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import _completion as complete
from . import _options as shared
from ._choices import Precision
from ._values import duration, words

if TYPE_CHECKING:
    from ..checkpoint.options import CheckpointOptions
    from ..sweep import SweepSettings
    from ..sweep.runner import SearchLimits

__all__ = ["Measured", "Source", "Tried"]

CANDIDATES, SEARCH = "Candidates", "Search"


class Schedules(str, Enum):
    """Which schedules are tried."""

    stage = "stage"
    layer = "layer"
    both = "both"


class PlotAxis(str, Enum):
    """What accuracy is plotted over."""

    speedup = "speedup"
    macs = "macs"


@dataclass(frozen=True)
class Tried:
    """Which candidates there are, and which is picked."""

    ratios: Annotated[
        str | None,
        typer.Option(
            metavar="0.3,0.5", help="Keep ratios to try. Default: 0.3,0.5,0.7,0.9.", rich_help_panel=CANDIDATES
        ),
    ] = None
    r: Annotated[
        str | None,
        typer.Option(
            "--r",
            metavar="4,8,12",
            help="Tokens merged a block to try, of a method that merges. Default: by the number of patches.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None
    per_stage: Annotated[
        bool,
        typer.Option(
            "--per-stage",
            help="Try every combination of them over the stages, not one ratio for all.",
            rich_help_panel=CANDIDATES,
        ),
    ] = False
    schedule: Annotated[
        Schedules | None, typer.Option(help="Schedules to try. Default: stage.", rich_help_panel=CANDIDATES)
    ] = None
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
    axis: Annotated[
        PlotAxis,
        typer.Option(
            help="Of the plot: measured speedup, or counted multiply-accumulates.", rich_help_panel=CANDIDATES
        ),
    ] = PlotAxis.speedup
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
        """The schedules to try; empty is the family's choice."""
        if self.schedule is None:
            return ()
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
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,METHOD",
            autocompletion=complete.methods,
            help="What is put on it, each tried: evo, evit, ... Default: evo.",
            rich_help_panel=shared.TIMM,
        ),
    ] = None
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
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to try, in the order given; empty is the default."""
        return () if self.method is None else tuple(dict.fromkeys(words(self.method)))

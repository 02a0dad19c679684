"""`evovit sweep`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..storage.files import exact, printable, write_bytes
from ..storage.ownership import check_replaceable, is_signed, signed
from . import _options as shared
from ._bench import duration, print_table
from ._choices import ClassOrder, Precision
from ._console import err, out, print_json, progress
from ._model import note, warn
from ._source import open_checkpoint

if TYPE_CHECKING:
    from ..sweep import Outcome

__all__ = ["sweep"]

CANDIDATES = "Candidates"


class Schedules(str, Enum):
    """Which schedules are tried."""

    stage = "stage"
    layer = "layer"
    both = "both"


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
    ratios: Annotated[
        str, typer.Option(metavar="0.3,0.5", help="Keep ratios to try.", rich_help_panel=CANDIDATES)
    ] = "0.3,0.5,0.7,0.9",
    per_stage: Annotated[
        bool,
        typer.Option(
            "--per-stage",
            help="Try every combination of them over the stages, not one ratio for all.",
            rich_help_panel=CANDIDATES,
        ),
    ] = False,
    schedule: Annotated[
        Schedules, typer.Option(help="Schedules to try.", rich_help_panel=CANDIDATES)
    ] = Schedules.stage,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Pick the most accurate candidate within this latency per call, such as 5ms.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Pick the fastest candidate that loses at most this many percentage points.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None,
    labels: shared.Labels = None,
    class_order: shared.ClassOrder = ClassOrder.auto,
    precision: Annotated[
        Precision, typer.Option(help="Weights and activations.", rich_help_panel=shared.RUN)
    ] = Precision.fp32,
    backend: Annotated[
        str,
        typer.Option(
            **shared.BACKEND,
            help="What runs the candidates, as for bench; a TensorRT engine is built for --batch.",
            rich_help_panel=shared.RUN,
        ),
    ] = "auto",
    batch: shared.Batch = 1,
    provider: shared.Provider = "auto",
    threads: shared.MeasuredThreads = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Measure 1 s and 20 calls per candidate instead of 5 s and 50.",
            rich_help_panel=shared.RUN,
        ),
    ] = False,
    restart: shared.Restart = False,
    workers: shared.Workers = None,
    recipe: shared.Recipe = None,
    ema: shared.Ema = False,
    num_heads: shared.NumHeads = None,
    img_size: shared.ImgSize = None,
    from_timm: shared.FromTimm = None,
    weights: shared.TimmWeights = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Try keep ratios and schedules: speed beside accuracy as table and plot, and the recipe to deploy.

    Examples:
      evovit sweep ckpt.pth --data val/ --max-drop 1
      evovit sweep ckpt.pth --data val/ --ratios 0.5,0.7 --per-stage --budget 5ms
      evovit sweep --from-timm vit_small_patch16_224 --weights vit.pth --data val/
    """
    import dataclasses

    from ..bench.markdown import markdown
    from ..classes.labels import ClassNames
    from ..evaluate import read_dataset
    from ..machine.facts import physical_cores
    from ..recipes.write import write_recipe
    from ..sweep import SweepSettings, candidates, choose, comparable, front
    from ..sweep import sweep as run
    from ..sweep.plot import plot
    from ..sweep.table import table

    limit = None if budget is None else duration(budget)
    picks = limit is not None or max_drop is not None
    there = [output / name for name in ("front.svg", "front.md", *(["recipe.toml"] if picks else []))]
    check_replaceable({path: is_signed for path in there if path.exists()}, force=force)
    if (checkpoint is None) == (from_timm is None) or (from_timm is None and weights is not None):
        raise InputError("give a checkpoint, or --from-timm NAME and its --weights FILE.")
    loaded = open_checkpoint(
        checkpoint or weights, recipe=recipe, ema=ema, num_heads=num_heads, img_size=img_size, from_timm=from_timm
    )
    if loaded.random:
        note("random weights: speed is measured, and accuracy means nothing")
    schedules = ("stage", "layer") if schedule is Schedules.both else (schedule.value,)
    grid = candidates(loaded.recipe, _ratios(ratios), per_stage=per_stage, schedules=schedules)
    classes = ClassNames.read(labels, loaded.recipe.structure.num_classes)
    dataset = read_dataset(data, classes, class_order.order)
    for text in dataset.warnings:
        warn(text)
    for text in (*loaded.notes, *dataset.notes):
        note(text)
    settings = SweepSettings(
        precision=precision.value,
        backend=backend,
        provider=provider,
        threads=threads or physical_cores(),
        batch=batch,
        min_seconds=1.0 if quick else 5.0,
        min_calls=20 if quick else 50,
        workers=workers,
    )
    try:
        with progress() as bar:
            task = bar.add_task("sweeping", total=100)
            outcomes = run(
                loaded,
                grid,
                dataset,
                classes,
                output,
                settings,
                restart=restart,
                force=force,
                on_step=lambda text, share: bar.update(task, description=text, completed=100 * share),
            )
    except KeyboardInterrupt:
        text = f"interrupted; what is done is in {printable(output)}: the same command resumes there."
        err().print(text, markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    what = "labelled images" if dataset.labels else "images without labels"
    title = f"{loaded.recipe.name}, {precision.value}, batch {batch}, {outcomes[0].images} {what}"
    shown = table(outcomes, title)
    html = "<!-- ", " -->"
    write_bytes(output / "front.svg", signed(plot(outcomes, title), "sweep", html).encode())
    write_bytes(output / "front.md", signed(f"{title}:\n\n{markdown(shown)}\n\n", "sweep", html).encode())
    if not all(outcome.stable for outcome in outcomes):
        note("some measurements did not settle: close other programs, leave out --quick, and run again with --restart")
    picked: Outcome | None = None
    if not json:
        print_table(shown)
    if picks:
        picked = choose(outcomes, budget_ms=limit, max_drop=max_drop)
        best = next(candidate for candidate in grid if candidate.name == picked.name)
        drop = f"drop {picked.drop:.2f} points on {picked.images} images"
        took = f"{comparable(outcomes)[picked.key]:.3g} ms per call of {picked.batch}"
        comment = f"Picked by evovit sweep: {picked.name}, {took}, {drop}."
        write_recipe(output / "recipe.toml", best.recipe, comment)
    if json:
        latency = comparable(outcomes)
        print_json(
            {
                "schema": 1,
                "outcomes": [{**dataclasses.asdict(one), "comparable_ms": latency[one.key]} for one in outcomes],
                "front": [outcome.name for outcome in front(outcomes)],
                "picked": None if picked is None else picked.name,
                "recipe": None if picked is None else exact(output / "recipe.toml"),
                "plot": exact(output / "front.svg"),
            }
        )
    elif picked is not None:
        recipe_path = printable(output / "recipe.toml")
        out().print(f"picked {picked.name}: {recipe_path}", markup=False, soft_wrap=True)
        source = checkpoint or weights
        what = f"--from-timm {from_timm}" if source is None else printable(source)
        out().print(f"next: evovit export {what} --recipe {recipe_path}", markup=False, soft_wrap=True)


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--ratios {text!r} is not a list of numbers; for example: --ratios 0.3,0.5,0.7") from None

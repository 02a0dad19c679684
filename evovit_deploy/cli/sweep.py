"""`evovit sweep`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..files import exact, printable, write_bytes
from ..ownership import check_replaceable, is_signed, signed
from ._bench import duration, print_table
from ._choices import ClassOrder, Force, MeasuredBackend, Precision, Provider
from ._console import err, out, print_json, progress
from ._model import note, warn
from ._source import open_checkpoint

if TYPE_CHECKING:
    from ..sweep import Outcome

__all__ = ["sweep"]


class Schedules(str, Enum):
    """Which schedules are tried."""

    stage = "stage"
    layer = "layer"
    both = "both"


def sweep(
    data: Annotated[
        Path, typer.Option(help="As for eval. Without labels, agreement with the full model stands for accuracy.")
    ],
    checkpoint: Annotated[Path | None, typer.Argument(help="Checkpoint.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for models, records, plot and recipe; goes on where it was.")
    ] = Path("sweep"),
    ratios: Annotated[str, typer.Option(help="Keep ratios to try.")] = "0.3,0.5,0.7,0.9",
    per_stage: Annotated[
        bool, typer.Option("--per-stage", help="Every combination over the stages, not the same in all.")
    ] = False,
    schedule: Annotated[Schedules, typer.Option(help="Schedules to try.")] = Schedules.stage,
    budget: Annotated[
        str | None, typer.Option(help="Pick the most accurate within this latency of a call, e.g. 5ms.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Pick the fastest that drops by at most this many points.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, as for eval.")] = None,
    class_order: Annotated[
        ClassOrder,
        typer.Option(
            help="How training numbered the class folders: text (torchvision's ImageFolder: 1, 10, 2) or natural (timm's own "
            "reader: 1, 2, 10). auto: by label, else by number, else text."
        ),
    ] = ClassOrder.auto,
    precision: Annotated[Precision, typer.Option(help="Parameters and activations.")] = Precision.fp32,
    backend: Annotated[
        MeasuredBackend, typer.Option(help="What runs them, as in bench; a TensorRT engine is built for --batch.")
    ] = MeasuredBackend.auto,
    batch: Annotated[int, typer.Option(min=1, help="Images a measured call.")] = 1,
    provider: Annotated[Provider, typer.Option(help="Where ONNX Runtime or PyTorch runs them.")] = Provider.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the cores of this machine.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="1 s and 20 calls a candidate instead of 5 s and 50.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Measure and evaluate again what is done.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe name or TOML file of the checkpoint.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Use the checkpoint's model_ema.")] = False,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads of a checkpoint that does not tell.")] = None,
    from_timm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sweep a class-token ViT of timm instead of a checkpoint.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Its weights, in timm's names.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Image size; the position embedding is resized.")] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Try keep ratios and schedules: speed beside accuracy, the front as table and plot, and the recipe to deploy."""
    import dataclasses

    from ..bench.environment import physical_cores
    from ..bench.markdown import markdown
    from ..evaluate import read_dataset
    from ..labels import ClassNames
    from ..sweep import SweepSettings, candidates, choose, comparable, front
    from ..sweep import sweep as run
    from ..sweep.plot import plot
    from ..sweep.recipe_file import write_recipe
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
        backend=backend.value,
        provider=provider.value,
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
        text = f"interrupted; what is done is in {printable(output)}: the same command goes on there."
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

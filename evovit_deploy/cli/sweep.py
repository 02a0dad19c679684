"""`evovit sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..storage.files import printable
from . import _options as shared
from ._bench import print_table
from ._choices import ClassOrder
from ._console import err, note, out, print_json, progress, warn
from ._groups import grouped
from ._sweep import Measured, Source, Tried
from ._values import amounts, duration, ratios

if TYPE_CHECKING:
    from ..sweep.files import SweepResult

__all__ = ["sweep"]


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
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Checkpoint: .pth, .pt, .bin or .safetensors. With --from-timm the weights of that ViT.",
        ),
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
      evovit sweep --from-timm vit_small_patch16_224 --weights vit.pth --method evo,evit --data val/
    """
    from ..sweep.files import SweepOptions, sweep_files

    if source.from_timm is None and (checkpoint is None or source.weights is not None):
        raise InputError("give a checkpoint; for a ViT of timm: its weights and --from-timm NAME.")
    understood = source.options()
    given = understood.weights(checkpoint, source.weights)
    options = SweepOptions(
        checkpoint=understood,
        ratios=None if tried.ratios is None else ratios("--ratios", tried.ratios, "0.3,0.5,0.7"),
        r=None if tried.r is None else amounts("--r", tried.r),
        methods=source.methods,
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
        axis=tried.axis.value,
    )
    try:
        with progress() as bar:
            task = bar.add_task("sweeping", total=1)
            result = sweep_files(
                given,
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

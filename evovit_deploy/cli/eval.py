"""`evovit eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..storage.files import printable
from . import _completion as complete
from . import _options as shared
from ._choices import ClassOrder
from ._console import err, note, print_json, progress, warn
from ._evaluation import show
from ._groups import grouped
from ._shared import Opened

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from ..evaluate import Progress

__all__ = ["evaluate"]


@dataclass(frozen=True)
class Models(Opened):
    """How the models are opened."""

    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete.recipes,
            help="Recipe of a checkpoint; for another file, the transform that it must have been exported with.",
            rich_help_panel=shared.CHECKPOINT,
        ),
    ] = None


@grouped
def evaluate(
    model: shared.Model,
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Folder with one folder per class, or a CSV or JSONL file with path and label.",
            rich_help_panel=shared.DATA,
        ),
    ],
    against: shared.Against = None,
    labels: shared.Labels = None,
    class_order: shared.ClassOrder = ClassOrder.auto,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write every prediction to this CSV file, one line per image.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    batch: shared.Batch = 32,
    workers: shared.Workers = None,
    restart: shared.Restart = False,
    *,
    models: Models,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Measure accuracy on labelled images, alone or against a second model; the same command resumes after an interruption.

    Examples:
      evovit eval model.onnx --data val/ --labels labels.txt
      evovit eval model.onnx --data val.csv --against ckpt.pth -o predictions.csv
    """
    from ..evaluate.files import EvalOptions, evaluate_files

    options = EvalOptions(
        models=models.opening(),
        against=against,
        labels=labels,
        class_order=class_order.order,
        predictions=predictions,
        batch_size=batch,
        workers=workers,
        restart=restart,
        force=force,
    )
    with _showing() as (bar, update):
        result = evaluate_files(
            model,
            data,
            options,
            note=lambda text: note(text, bar),
            warn=lambda text: warn(text, bar),
            on_progress=update,
        )
    if json:
        print_json(result.to_dict())
    else:
        show(result)
    for text in result.warnings:
        warn(text)
    if result.failures:
        count = len(result.failures)
        err().print(f"{count} of {len(result.dataset.paths)} images could not be evaluated.")
        raise typer.Exit(1)


@contextmanager
def _showing() -> Iterator[tuple[Bar, Callable[[Progress], None]]]:
    """A progress bar with time left; failures are named as they come, and Ctrl-C says how to go on."""
    done = 0
    with progress() as bar:
        task = bar.add_task("opening", total=None)

        def update(state: Progress) -> None:
            nonlocal done
            if not done and state.resumed == state.done and state.resumed:
                note(
                    f"resuming after {state.resumed} of {state.total} images, where an earlier run was interrupted", bar
                )
            for path, reason in state.failures:
                bar.console.print(f"{printable(path)}: {reason}", markup=False, soft_wrap=True)  # above the bar
            done = state.done
            bar.update(task, description="evaluating", completed=state.done, total=state.total)

        try:
            yield bar, update
        except KeyboardInterrupt:
            bar.stop()
            err().print(
                f"interrupted after {done} images, which are kept: the same command resumes there.", soft_wrap=True
            )
            raise typer.Exit(130) from None

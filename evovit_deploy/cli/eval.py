"""`evovit eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..storage.files import printable
from . import _completion as complete
from . import _options as shared
from ._choices import ClassOrder
from ._console import err, print_json, progress
from ._evaluation import show
from ._model import ModelChoice, note, open_models, warn

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..evaluate import Progress
    from ..recipes import Recipe

__all__ = ["evaluate"]


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
    provider: shared.Provider = "auto",
    threads: shared.Threads = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete.recipes,
            help="Recipe of a checkpoint; for another file, the transform that it must have been exported with.",
            rich_help_panel=shared.CHECKPOINT,
        ),
    ] = None,
    keep: shared.Keep = None,
    schedule: shared.Schedule = None,
    ema: shared.Ema = False,
    num_heads: shared.NumHeads = None,
    from_timm: shared.FromTimm = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Measure accuracy on labelled images, alone or against a second model; the same command resumes after an interruption.

    Examples:
      evovit eval model.onnx --data val/ --labels labels.txt
      evovit eval model.onnx --data val.csv --against ckpt.pth -o predictions.csv
    """
    from ..classes.labels import ClassNames
    from ..evaluate import Subject, read_dataset
    from ..evaluate import evaluate as run
    from ..recipes import load_recipe

    choice = ModelChoice(provider, threads, recipe, keep, schedule, ema, num_heads, from_timm)
    expected = None if recipe is None else load_recipe(recipe)
    paths = [model] if against is None else [model, against]
    with ExitStack() as stack:
        engines = open_models(stack, paths, choice)
        _notes(engines, expected)
        classes = ClassNames.read(labels, engines[0].spec.num_classes)
        dataset = read_dataset(data, classes, class_order.order)
        for text in dataset.warnings:
            warn(text)
        for text in dataset.notes:
            note(text)
        subjects = [Subject(engine, path) for engine, path in zip(engines, paths)]
        with _showing() as update:
            result = run(
                subjects[0],
                dataset,
                classes,
                reference=subjects[1] if against is not None else None,
                predictions=predictions,
                batch_size=batch,
                workers=workers,
                restart=restart,
                force=force,
                on_progress=update,
            )
    if json:
        print_json(result.to_dict())
    else:
        show(result)
    for text in result.warnings:
        warn(text)
    if result.failures:
        err().print(f"{len(result.failures)} of {len(dataset.paths)} images could not be evaluated.")
        raise typer.Exit(1)


def _notes(engines: list[Engine], expected: Recipe | None) -> None:
    """Settle the transforms, and say what is unusual about the models."""
    from ..evaluate.transform import settle_transform, transform_difference

    for engine in engines:
        assumed = settle_transform(engine, expected)
        if assumed:
            note(assumed)
        if engine.spec.manifest is not None and engine.spec.manifest.get("weights", {}).get("random"):
            note(f"{engine.spec.name} has random weights: the classes mean nothing")
    transforms = [engine.spec.transform for engine in engines if engine.spec.transform is not None]
    if len(transforms) == 2 and (difference := transform_difference(*transforms)):
        note(f"the models prepare their images differently, each as it was exported: {difference}")


@contextmanager
def _showing() -> Iterator[Callable[[Progress], None]]:
    """A progress bar with time left; failures are named as they come, and Ctrl-C says how to go on."""
    done = 0
    with progress() as bar:
        task = bar.add_task("evaluating", total=None)

        def update(state: Progress) -> None:
            nonlocal done
            if not done and state.resumed == state.done and state.resumed:
                note(f"resuming after {state.resumed} of {state.total} images, where an earlier run was interrupted")
            for path, reason in state.failures:
                bar.console.print(f"{printable(path)}: {reason}", markup=False, soft_wrap=True)  # above the bar
            done = state.done
            bar.update(task, completed=state.done, total=state.total)

        try:
            yield update
        except KeyboardInterrupt:
            bar.stop()
            err().print(
                f"interrupted after {done} images, which are kept: the same command resumes there.", soft_wrap=True
            )
            raise typer.Exit(130) from None

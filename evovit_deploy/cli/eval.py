"""`evovit eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..files import printable
from ._choices import ClassOrder, Force, Provider
from ._console import err, print_json, progress
from ._evaluation import show
from ._model import ModelChoice, note, open_models, warn

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..evaluate import Progress
    from ..recipes import Recipe

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    data: Annotated[
        Path, typer.Option(help="Folder with one folder a class, or a CSV or JSONL file with path and label.")
    ],
    against: Annotated[
        Path | None, typer.Option(help="Second model on the same images: FP32 reference, vanilla twin, ...")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Class names: a text file with one per line, or JSON (list, number to name, name to number)."
        ),
    ] = None,
    class_order: Annotated[
        ClassOrder,
        typer.Option(
            help="How training numbered the class folders: text (torchvision's ImageFolder: 1, 10, 2) or natural (timm's own "
            "reader: 1, 2, 10). auto: by label, else by number, else text."
        ),
    ] = ClassOrder.auto,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-o", help="Write a CSV file with a line an image.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one run.")] = 32,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; default: the CPU count, at most 8.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin again instead of going on with an interrupted run.")
    ] = False,
    provider: Annotated[
        Provider, typer.Option(help="auto is CUDA where a GPU can be used, else the CPU.")
    ] = Provider.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads within an operator.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe of a checkpoint. Of another file: the transform it must have been exported with."),
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Keep ratios of a checkpoint, e.g. 0.7,0.5.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Schedule of a checkpoint: stage or layer.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Use a checkpoint's model_ema.")] = False,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads of a checkpoint that does not tell.")] = None,
    from_timm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="MODEL holds the weights of this ViT of timm; token evolution is put on top of it."
        ),
    ] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Accuracy on labelled images, alone or against a second model; run it again after an interruption to go on."""
    from ..evaluate import Subject, read_dataset
    from ..evaluate import evaluate as run
    from ..labels import ClassNames
    from ..recipes import load_recipe

    choice = ModelChoice(provider.value, threads, recipe, keep, schedule, ema, num_heads, from_timm)
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
                batch_size=batch_size,
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
                note(f"going on after {state.resumed} of {state.total} images, where an earlier run was interrupted")
            for path, reason in state.failures:
                err().print(f"{printable(path)}: {reason}", markup=False, soft_wrap=True)
            done = state.done
            bar.update(task, completed=state.done, total=state.total)

        try:
            yield update
        except KeyboardInterrupt:
            bar.stop()
            err().print(
                f"interrupted after {done} images, which are kept: the same command goes on there.", soft_wrap=True
            )
            raise typer.Exit(130) from None

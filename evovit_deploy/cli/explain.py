"""`evovit explain`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..storage.files import printable
from . import _options as shared
from ._console import err, out, print_json, progress
from ._model import ModelChoice, note, open_models, warn

if TYPE_CHECKING:
    from ..explain import Explanation

__all__ = ["explain"]


def explain(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Checkpoint; or an ONNX file or engine exported with --outputs logits,kept."
        ),
    ],
    images: shared.Images,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for index.html and the PNG files.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = Path("explain"),
    against: shared.Against = None,
    labels: shared.Labels = None,
    limit: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Images to draw; the summary counts all.", rich_help_panel=shared.OUTPUT),
    ] = 200,
    provider: shared.Provider = "auto",
    threads: shared.Threads = None,
    recipe: shared.Recipe = None,
    keep: shared.Keep = None,
    schedule: shared.Schedule = None,
    ema: shared.Ema = False,
    num_heads: shared.NumHeads = None,
    from_timm: shared.FromTimm = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Draw which patches are kept, and the class attention: PNG files and one HTML gallery; exit 1 if an image is unreadable.

    Examples:
      evovit explain ckpt.pth photos/ -o gallery
      evovit explain model.onnx photo.jpg --against ckpt.pth
    """
    from ..classes.labels import ClassNames
    from ..engines.registry import kind_of
    from ..evaluate.transform import settle_transform
    from ..explain import explain as run
    from ..images.folder import find_images
    from ..recipes import load_recipe

    choice = ModelChoice(provider, threads, recipe, keep, schedule, ema, num_heads, from_timm)
    with ExitStack() as stack:
        engines = open_models(stack, [model] if against is None else [model, against], choice, ("logits", "kept"))
        for engine in engines:
            assumed = settle_transform(engine, None if recipe is None else load_recipe(recipe))
            if assumed:
                note(assumed)
        if kind_of(engines[0].backend) != "checkpoint":
            note("only a checkpoint shows the class attention; this file only says which patches it keeps")
        classes = ClassNames.read(labels, engines[0].spec.num_classes)
        left_out: list[str] = []
        paths = find_images(images, left_out)
        for text in left_out:
            warn(text)
        with progress() as bar:
            task = bar.add_task("drawing", total=len(paths))
            result = run(
                engines[0],
                paths,
                output,
                reference=engines[1] if against is not None else None,
                classes=classes,
                limit=limit,
                force=force,
                on_progress=lambda done: bar.update(task, completed=done),
                on_failure=lambda path, reason: err().print(
                    f"{printable(path)}: {reason}", markup=False, soft_wrap=True
                ),
            )
    if json:
        print_json(result.to_dict())
    else:
        _show(result)
    if result.failures:
        err().print(f"{len(result.failures)} of {len(paths)} images could not be read.")
        raise typer.Exit(1)


def _show(result: Explanation) -> None:
    console, summary = out(), result.summary
    for part in summary["selections"]:
        line = f"{part['name']}: {part['kept']} of {part['patches']} patches, grid {part['grid']} x {part['grid']}"
        if part["stability"] is not None:
            line += f"; Jaccard with the reference {part['stability']:.4f}, identical in {part['identical']} images"
        console.print(line, soft_wrap=True)
    for pair in summary["overlap"]:
        console.print(
            f"{pair['share']:.1%} of {pair['later']} were in {pair['earlier']} too (at random: {pair['chance']:.1%})",
            soft_wrap=True,
        )
    if summary["same_class"] is not None:
        console.print(f"same class in both models: {summary['same_class']} of {summary['images']} images")
    images = "1 image" if summary["images"] == 1 else f"{summary['images']} images"
    console.print(
        f"{images}; {len(result.pictures)} drawn: {printable(result.gallery)}",
        markup=False,
        soft_wrap=True,
    )

"""`evovit explain`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..files import printable
from ._choices import Force, Provider
from ._console import err, out, print_json, progress
from ._model import ModelChoice, note, open_models, warn

if TYPE_CHECKING:
    from ..explain import Explanation

__all__ = ["explain"]


def explain(
    model: Annotated[Path, typer.Argument(help="Checkpoint, or an ONNX file or engine with the output kept.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders that are searched for images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for index.html and the PNG files.")] = Path(
        "explain"
    ),
    against: Annotated[
        Path | None, typer.Option(help="Second model, such as another precision: which patches do both keep?")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Class names: a text file with one per line, or JSON (list, number to name, name to number)."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images that are drawn; the summary counts all.")] = 200,
    provider: Annotated[
        Provider, typer.Option(help="auto is CUDA where a GPU can be used, else the CPU.")
    ] = Provider.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads within an operator.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe name or TOML file of a checkpoint.")] = None,
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
    """Draw which patches are kept and the class attention: PNG files and one HTML gallery; exits 1 if an image is unreadable."""
    from ..evaluate.transform import settle_transform
    from ..explain import explain as run
    from ..labels import ClassNames
    from ..preprocess import find_images
    from ..recipes import load_recipe

    choice = ModelChoice(provider.value, threads, recipe, keep, schedule, ema, num_heads, from_timm)
    with ExitStack() as stack:
        engines = open_models(stack, [model] if against is None else [model, against], choice, ("logits", "kept"))
        for engine in engines:
            assumed = settle_transform(engine, None if recipe is None else load_recipe(recipe))
            if assumed:
                note(assumed)
        if engines[0].backend != "pytorch":
            note("only a checkpoint shows the class attention; this file tells which patches it keeps")
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
    console.print(
        f"{summary['images']} images; {len(result.pictures)} drawn: {printable(result.gallery)}",
        markup=False,
        soft_wrap=True,
    )

"""`evovit explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..storage.files import printable
from . import _options as shared
from ._console import err, note, out, print_json, progress, warn
from ._groups import grouped
from ._shared import Opened

if TYPE_CHECKING:
    from ..explain import Explanation

__all__ = ["explain"]


@grouped
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
    *,
    models: Opened,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Draw which patches are kept, and the class attention: PNG files and one HTML gallery; exit 1 if an image is unreadable.

    Examples:
      evovit explain ckpt.pth photos/ -o gallery
      evovit explain model.onnx photo.jpg --against ckpt.pth
    """
    from ..explain.files import ExplainOptions, explain_files

    options = ExplainOptions(models.opening(), output, against, labels, limit, force)
    with progress() as bar:
        task = bar.add_task("drawing", total=None)
        result = explain_files(
            model,
            images,
            options,
            note=lambda text: note(text, bar),
            warn=lambda text: warn(text, bar),
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            on_failure=lambda path, reason: bar.console.print(
                f"{printable(path)}: {reason}", markup=False, soft_wrap=True
            ),
        )
    if json:
        print_json(result.to_dict())
    else:
        _show(result)
    if result.failures:
        err().print(f"{len(result.failures)} of {len(result.images) + len(result.failures)} images could not be read.")
        raise typer.Exit(1)


def _show(result: Explanation) -> None:
    console, summary = out(), result.summary
    for part in summary["selections"]:
        count = f"{part['kept']} of" if "kept" in part else f"{part['tokens']} tokens of"
        line = f"{part['name']}: {count} {part['patches']} patches, grid {part['grid']} x {part['grid']}"
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

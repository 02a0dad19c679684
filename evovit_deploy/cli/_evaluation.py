"""An evaluation as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..storage.files import printable
from ._console import out

if TYPE_CHECKING:
    from rich.table import Table

    from ..classes.labels import ClassNames
    from ..evaluate import Evaluation
    from ..evaluate.report import Flip

__all__ = ["show"]

# More classes or flips than this are cut to the worst; --json and -o have all.
ROWS = 20


def show(result: Evaluation) -> None:
    """Print an evaluation: the models, their classes, and the images on which they differ."""
    console = out()
    document = result.to_dict()
    console.print(_models(document))
    if document["accuracy"] is not None:
        console.print(_classes(document["accuracy"]["classes"], result.classes))
    comparison = document["comparison"]
    if comparison is None:
        return
    agreement = comparison["agreement"]
    console.print(f"top-1 agreement {_share(agreement)}, {agreement['hits']} of {agreement['count']} images")
    if comparison["mcnemar_p"] is not None:
        console.print(
            f"only the model right on {comparison['only_model_right']}, only the reference on "
            f"{comparison['only_reference_right']}; McNemar's exact test p = {comparison['mcnemar_p']:.3g}",
            soft_wrap=True,
        )
    if result.flips:
        console.print(f"{len(result.flips)} flipped (model, against reference):")
        for flip in result.flips[:ROWS]:
            console.print(f"  {_flip(flip, result.classes)}", markup=False, soft_wrap=True)
        if len(result.flips) > ROWS:
            console.print(f"  and {len(result.flips) - ROWS} more: see --json or -o FILE.csv")


def _models(document: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("")
    columns: list[list[str]] = []
    for key, title in (("model", "model"), ("reference", "reference")):
        model = document[key]
        if model is None:
            continue
        table.add_column(title, overflow="fold")
        accuracy = document["accuracy" if key == "model" else "reference_accuracy"]
        column = [model["path"], f"{model['backend']} on {model['device']}, {model['precision']}"]
        if accuracy is not None:
            ece = accuracy["ece"]
            column += [
                _share(accuracy["top1"]),
                "- (no more than 5 classes)" if accuracy["top5"] is None else _share(accuracy["top5"]),
                "-" if ece is None else f"{ece:.4f}",
            ]
        columns.append(column)
    names = ["file", "runs on", "top-1 [95%]", "top-5 [95%]", "calibration (ECE)"]
    for name, *cells in zip(names, *columns):
        table.add_row(name, *(Text(cell) for cell in cells))  # not markup: a path may hold brackets
    table.add_section()
    table.add_row("images", f"{document['evaluated']} of {document['images']}")
    return table


def _classes(rows: list[dict[str, Any]], classes: ClassNames) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = rows
    title = None
    if len(rows) > ROWS:
        shown = sorted(rows, key=lambda row: (row["top1"]["value"], row["class"]))[:ROWS]
        title = f"the {ROWS} worst of {len(rows)} classes (all: --json)"
    table = Table(title=title)
    for name in ("class", "images", "top-1", "95% interval", "most taken for"):
        table.add_column(name, justify="left" if name in ("class", "most taken for") else "right")
    for row in shown:
        share, wrong = row["top1"], row["most_taken_for"]
        taken = "" if wrong is None else classes.label(wrong) or str(wrong)
        table.add_row(
            Text(row["label"] or str(row["class"])),
            str(row["images"]),
            f"{share['value']:.1%}",
            f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]",
            Text(taken),
        )
    return table


def _share(share: dict[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    return f"{share['value']:.2%} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _flip(flip: Flip, classes: ClassNames) -> str:
    def name(number: int) -> str:
        return classes.label(number) or str(number)

    (mine, sure), (theirs, theirs_sure) = flip.model, flip.reference
    label = "" if flip.label is None else f", is {name(flip.label)} ({flip.kind})"
    return f"{printable(flip.path)}: {name(mine)} {sure:.1%}, against {name(theirs)} {theirs_sure:.1%}{label}"

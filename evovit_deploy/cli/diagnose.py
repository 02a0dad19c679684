"""`evovit diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ModelFileError, ParityError
from ..storage.files import printable
from . import _options as shared
from ._choices import HalfPrecision
from ._console import note, out, print_json, progress
from ._groups import grouped
from ._shared import Understood

if TYPE_CHECKING:
    from ..diagnose import Diagnosis

__all__ = ["diagnose"]


@grouped
def diagnose(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Checkpoint, ONNX file in FP16, BF16 or FP32, or engine.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="FP32 reference of an ONNX file: its checkpoint, or its FP32 export. Default: its own weights in FP32. Of an "
            "engine: what it was built from. Default: the ONNX file beside it.",
            rich_help_panel=shared.DATA,
        ),
    ] = None,
    precision: Annotated[
        HalfPrecision, typer.Option(help="Of a checkpoint; a file has its own.", rich_help_panel=shared.RUN)
    ] = HalfPrecision.fp16,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Images, repeatable. Default: photographs that come with evovit, and generated ones.",
            rich_help_panel=shared.DATA,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Also draw error and range along the depth, as SVG.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show every layer, not only the notable ones.", rich_help_panel=shared.OUTPUT)
    ] = False,
    *,
    understood: Understood,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Find where half precision breaks a model: both precisions, layer by layer; exit 3 if it does.

    Examples:
      evovit diagnose ckpt.pth
      evovit diagnose model_fp16.onnx --against ckpt.pth -o model.svg
    """
    from ..diagnose import diagnose as run
    from ..diagnose.picture import draw
    from ..engines.registry import backend_of, is_engine
    from ..storage.files import write_bytes
    from ..storage.missing import no_such_file
    from ..storage.ownership import XML, check_replaceable, is_signed, signed

    if output is not None:
        check_replaceable({output: is_signed}, force=force)
    if not model.is_file():
        raise no_such_file(model, ModelFileError, "Give a checkpoint, an ONNX file or an engine.")
    options, found = understood.options(), None
    row = backend_of(model)
    if row is not None and row.kind == "checkpoint":
        found = options.load(model)
        for text in found.notes:
            note(text)
    else:
        options.refuse_for(model)
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        result = run(
            found or model,
            against=against,
            precision=precision.value,
            images=images or None,
            step=lambda text, done, total: bar.update(task, description=text, completed=done, total=total or None),
        )
    if not result.layers:
        note("an FP32 engine has no layers in half precision: its outputs were compared, and nothing is drawn")
        output = None
    if output is not None:
        write_bytes(output, signed(draw(result), "diagnose", XML).encode())
    if json:
        print_json({"model": printable(model), **result.to_dict()})
    else:
        _show(result, every, engine=is_engine(model))
        if output is not None:
            note(f"drawn: {printable(output)}")
    if not result.passed:
        reason = result.culprits[0] if result.culprits else None
        told = f": {reason.node}: {reason.text}" if reason else f": {result.parity.failure}"
        advice = "What to do: `evovit export --islands auto`, --precision bf16 or fp32; see docs/precision.md."
        if reason and reason.reason == "reference":
            advice = "No precision mends that: look at the weights, and at these images in the model's own code."
        if reason and reason.reason == "engine":
            advice = "Build it again, or with another version of its library; `evovit verify` compares any two files."
        raise ParityError(f"{result.model} is not the same function as {result.reference}{told}. {advice}")


def _show(result: Diagnosis, every: bool, engine: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from ._parity import parity_table

    console = out()
    console.print(
        f"{result.model} against {result.reference}, {len(result.images)} images", markup=False, soft_wrap=True
    )
    for culprit in result.culprits:
        console.print(f"{culprit.reason}: {culprit.node}: {culprit.text}", markup=False, soft_wrap=True)
    shown = result.layers if every else result.notable[:40]
    if shown:
        table = Table(title="layers" if every else "layers to look at", title_justify="left")
        for column in ("node", "error", "jump", "largest", "of range", "zeroed", "", "worst at"):
            table.add_column(column, justify="left" if column in ("node", "", "worst at") else "right", overflow="fold")
        for layer in shown:
            table.add_row(
                Text(layer.node),
                f"{layer.error:.2%}",
                f"{layer.jump:.1f}x",
                f"{layer.largest:.3g}",
                f"{layer.range_used:.1%}" if layer.range_used else "-",
                f"{layer.vanished:.1%}",
                "overflow" if layer.overflowed else "near" if layer.near else "",
                Text(layer.image if layer.overflowed or not layer.near else layer.peak),
            )
        console.print(table)
        if not every and len(result.notable) > len(shown):
            console.print(f"and {len(result.notable) - len(shown)} more (--all)")
    if result.blocks:
        table = Table(title="residual stream after each block", title_justify="left")
        for column in ("block", "largest", "error"):
            table.add_column(column, justify="right")
        for growth in result.blocks:
            table.add_row(str(growth.block), f"{growth.largest:.3g}", f"{growth.error:.2%}")
        console.print(table)
    if result.stages:
        table = Table(title="selections", title_justify="left")
        for column in ("selection", "images that keep others", "smallest margin", "swapped, off the cut by", "at"):
            table.add_column(column, justify="left" if column in ("selection", "at") else "right")
        for stage in result.stages:
            table.add_row(
                stage.name, str(stage.moved), f"{stage.margin:.3%}", f"{stage.swapped:.3%}", Text(stage.image)
            )
        console.print(table)
    how = "as the engine gives it" if engine else "rounded after every operation"
    console.print(parity_table(result.parity, f"{result.precision}, {how}, against fp32"))

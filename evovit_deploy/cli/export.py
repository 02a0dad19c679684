"""`evovit export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ._console import err, out, print_json, progress

if TYPE_CHECKING:
    from ..export import ExportOptions, ExportResult

__all__ = ["export"]


class Precision(str, Enum):
    """Precision of weights and activations."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class ImageInput(str, Enum):
    """What the model takes."""

    float32 = "float32"
    uint8 = "uint8"


class SelectionPattern(str, Enum):
    """How tokens are selected."""

    auto = "auto"
    topk = "topk"
    rank = "rank"
    onehot = "onehot"


class Kind(str, Enum):
    """Which vanilla baseline."""

    twin = "twin"
    trimmed = "trimmed"
    stock = "stock"


def export(
    checkpoint: Annotated[Path | None, typer.Argument(help="Checkpoint: .pth, .pt, .bin or .safetensors.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="ONNX file to write; a .json lands beside it.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Weights and activations; scores stay FP32.")] = Precision.fp32,
    batch: Annotated[str, typer.Option(help="`dynamic`, or a number for a static batch.")] = "dynamic",
    input_: Annotated[
        ImageInput, typer.Option("--input", help="float32: [B, 3, S, S] normalised. uint8: [B, S, S, 3] as decoded.")
    ] = ImageInput.float32,
    selection: Annotated[
        SelectionPattern, typer.Option(help="Selection pattern; all keep the same tokens.")
    ] = SelectionPattern.auto,
    outputs: Annotated[str, typer.Option(help="Comma-separated: logits, probabilities, kept.")] = "logits",
    opset: Annotated[int | None, typer.Option(help="ONNX opset, 18 to 23. Default 20; 22 for bf16.")] = None,
    fold: Annotated[bool, typer.Option("--fold/--no-fold", help="Fold weights exactly into fewer operations.")] = True,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or TOML file; found from the checkpoint by default.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Keep ratios: 0.5, or one a stage: 0.7,0.5.")] = None,
    schedule: Annotated[str | None, typer.Option(help="stage (published) or layer.")] = None,
    num_heads: Annotated[
        int | None, typer.Option(help="Attention heads, if they cannot be told from the checkpoint.")
    ] = None,
    img_size: Annotated[int | None, typer.Option(help="Image size; the position embedding is resized.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Use the checkpoint's model_ema.")] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="No checkpoint: seeded random weights for --recipe.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(help="Export a vanilla model instead, e.g. deit_small_patch16_224 or levit_128s_224.")
    ] = None,
    baseline_kind: Annotated[
        Kind, typer.Option(help="twin: folded. trimmed: and no dead work. stock: as timm ships it.")
    ] = Kind.twin,
    seed: Annotated[int, typer.Option(help="Seed of random weights.")] = 0,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove parity before the file is kept.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a checkpoint to ONNX and prove it against the FP32 PyTorch model."""
    from ..export import ExportOptions, export_baseline, export_onnx
    from ..export.onnx import default_name
    from ..models.evo_deit import ModelOptions

    if sum((checkpoint is not None, random_weights, baseline is not None)) != 1:
        raise InputError("give one of: a checkpoint file, `--recipe NAME --random-weights`, or `--baseline NAME`.")
    options = ExportOptions(
        ModelOptions(
            precision.value, input_.value, selection.value, tuple(part.strip() for part in outputs.split(",")), fold
        ),  # type: ignore[arg-type]
        batch=_batch(batch),
        opset=opset,
        prove=verify,
    )
    with progress() as bar:
        task = bar.add_task("reading", total=5)

        def step(text: str) -> None:
            bar.update(task, description=text, advance=1)

        if baseline is not None:
            from ..models.vanilla import vanilla_recipe

            target = output or Path(default_name(vanilla_recipe(baseline), options))
            result = export_baseline(baseline, target, options, kind=baseline_kind.value, seed=seed, step=step)  # type: ignore[arg-type]
        else:
            from ._source import open_checkpoint

            found = open_checkpoint(
                checkpoint,
                recipe=recipe,
                keep=keep,
                schedule=schedule,
                num_heads=num_heads,
                img_size=img_size,
                ema=ema,
                random_weights=random_weights,
                seed=seed,
            )
            for note in found.notes:
                err().print(f"[dim]note: {note}[/]", soft_wrap=True)
            target = output or Path(default_name(found.recipe, options))
            result = export_onnx(found, target, options, step=step)
    if json:
        print_json({"path": str(result.path), "json": str(result.json_path), **result.manifest})
    else:
        _show(result, options)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--batch {text!r}; give `dynamic` or a number from 1.")
    return int(text)


def _show(result: ExportResult, options: ExportOptions) -> None:
    from ._parity import parity_table

    console, manifest = out(), result.manifest
    size = result.path.stat().st_size / 1e6
    batch = "dynamic" if manifest["batch"] is None else manifest["batch"]
    weights = " [yellow](random weights)[/]" if manifest["weights"]["random"] else ""
    console.print(
        f"[bold]{result.path}[/]  {size:.1f} MB  {manifest['name']}{weights}  {manifest['precision']}  "
        f"input {manifest['input']}  batch {batch}  opset {manifest['opset']}  outputs {', '.join(manifest['outputs'])}",
        soft_wrap=True,
    )
    if result.parity is None:
        console.print("parity: [yellow]not proven[/] (--no-verify)")
    else:
        console.print(parity_table(result.parity, "ONNX Runtime CPU against the FP32 PyTorch model"))

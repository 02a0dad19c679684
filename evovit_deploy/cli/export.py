"""`evovit export`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import _completion as complete
from . import _options as shared
from ._choices import BaselineKind, Format, ImageInput, Pool, Precision, SelectionPattern
from ._console import out, print_json, progress
from ._model import note
from .build import build_document, build_with_progress, show_build

if TYPE_CHECKING:
    from ..engines.trt.options import BuildOptions
    from ..export import ExportOptions, ExportResult

__all__ = ["export"]

GRAPH, NO_CHECKPOINT = "Graph", "Without a checkpoint"


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT", help="Checkpoint: .pth, .pt, .bin or .safetensors.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write, .onnx or .engine; its description goes beside it. Default: named after the model.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="engine: also build a TensorRT engine from the ONNX file.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = Format.onnx,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Weights and activations; scores stay FP32. Default: fp32, and fp16 for an engine.",
            rich_help_panel=GRAPH,
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(metavar="dynamic|N", help="Any batch size, or this one only.", rich_help_panel=GRAPH),
    ] = "dynamic",
    input_: Annotated[
        ImageInput,
        typer.Option(
            "--input",
            help="float32: [B, 3, S, S], normalised. uint8: [B, S, S, 3], as decoded.",
            rich_help_panel=GRAPH,
        ),
    ] = ImageInput.float32,
    outputs: Annotated[
        str,
        typer.Option(
            metavar="logits,kept",
            autocompletion=complete.outputs,
            help="What the model returns: logits, probabilities, kept (the selected patches).",
            rich_help_panel=GRAPH,
        ),
    ] = "logits",
    selection: Annotated[
        SelectionPattern,
        typer.Option(help="How patches are selected; all patterns keep the same ones.", rich_help_panel=GRAPH),
    ] = SelectionPattern.auto,
    opset: Annotated[
        int | None,
        typer.Option(metavar="18-23", help="ONNX opset. Default: 20, and 22 for bf16.", rich_help_panel=GRAPH),
    ] = None,
    fold: Annotated[
        bool,
        typer.Option("--fold/--no-fold", help="Fold weights into fewer operations, exactly.", rich_help_panel=GRAPH),
    ] = True,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Prove parity before the file is kept.", rich_help_panel=GRAPH),
    ] = True,
    recipe: shared.Recipe = None,
    keep: shared.Keep = None,
    schedule: shared.Schedule = None,
    num_heads: shared.NumHeads = None,
    img_size: shared.ImgSize = None,
    ema: shared.Ema = False,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Seeded random weights for --recipe.", rich_help_panel=NO_CHECKPOINT),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of random weights.", rich_help_panel=NO_CHECKPOINT)] = 0,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.baselines,
            help="A vanilla model instead, such as deit_small_patch16_224 (see `evovit list baselines`).",
            rich_help_panel=NO_CHECKPOINT,
        ),
    ] = None,
    baseline_kind: Annotated[
        BaselineKind | None,
        typer.Option(
            help="twin: folded. trimmed: dead work left out too. stock: as timm ships it. With --from-timm: export the "
            "original.",
            show_default="twin",
            rich_help_panel=NO_CHECKPOINT,
        ),
    ] = None,
    from_timm: shared.FromTimm = None,
    weights: shared.TimmWeights = None,
    pool: Annotated[
        Pool | None,
        typer.Option(
            help="Class token, or mean of the patches. Default: as the weights or timm say.",
            rich_help_panel=shared.TIMM,
        ),
    ] = None,
    target: shared.Target = None,
    profile: shared.Profile = None,
    min_batch: shared.MinBatch = None,
    opt_batch: shared.OptBatch = None,
    max_batch: shared.MaxBatch = None,
    require_fused_attention: shared.RequireFusedAttention = False,
    max_kernels: shared.MaxKernels = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Export a checkpoint to ONNX and prove it against the FP32 PyTorch model; build a TensorRT engine too if asked.

    Examples:
      evovit export ckpt.pth -o model.onnx
      evovit export ckpt.pth -o model.onnx --precision fp16 --outputs logits,kept
      evovit export ckpt.pth --format engine --max-batch 32
      evovit export --recipe evo_deit_small_patch16_224 --random-weights
      evovit export --from-timm vit_small_patch16_224 --weights vit.pth --keep 0.7
    """
    from ..export import ExportOptions, export_baseline, export_onnx
    from ..export.onnx import default_name
    from ..models.options import ModelOptions
    from ..models.vit.vanilla import vanilla_recipe

    if from_timm is not None and checkpoint is not None:
        raise InputError(f"{checkpoint} is given beside --from-timm; if it holds the weights: --weights {checkpoint}.")
    if (
        sum((checkpoint is not None, random_weights and not from_timm, baseline is not None, from_timm is not None))
        != 1
    ):
        raise InputError(
            "give one of: a checkpoint file, `--recipe NAME --random-weights`, `--baseline NAME`, or `--from-timm NAME`."
        )
    if from_timm is None and weights is not None:
        raise InputError(f"--weights {weights} needs the name of the model in timm: --from-timm NAME.")
    if weights is not None and random_weights:
        raise InputError("--weights and --random-weights cannot be used together.")
    static = _batch(batch)
    given = {
        "target": target.value if target else None,
        "profile": profile,
        "min_batch": min_batch,
        "opt_batch": opt_batch,
        "max_batch": max_batch,
        "require_fused_attention": require_fused_attention or None,
        "max_kernels": max_kernels,
    }
    building = _build_options(format_, output, given, static, precision)
    chosen = precision.value if precision else building.precision if building else "fp32"
    options = ExportOptions(
        ModelOptions(chosen, input_.value, selection.value, tuple(part.strip() for part in outputs.split(",")), fold),  # type: ignore[arg-type]
        batch=static,
        opset=opset,
        prove=verify,
    )
    write: Callable[..., ExportResult]
    kind = (baseline_kind or BaselineKind.twin).value
    original = from_timm is not None and baseline_kind is not None
    if original and (keep is not None or schedule is not None):
        raise InputError(
            "--baseline-kind exports the original, which keeps every patch. Leave out --keep and --schedule."
        )
    if baseline is not None:
        model = vanilla_recipe(baseline)
        write = partial(export_baseline, baseline, options=options, kind=kind, seed=seed)  # type: ignore[arg-type]
    else:
        from ._source import open_checkpoint

        with progress() as bar:
            bar.add_task("reading", total=None)
            found = open_checkpoint(
                checkpoint or weights,
                recipe=recipe,
                keep="1" if original else keep,
                schedule=schedule,
                num_heads=num_heads,
                img_size=img_size,
                ema=ema,
                random_weights=random_weights,
                seed=seed,
                from_timm=from_timm,
                pool=pool.value if pool else None,
            )
        for text in found.notes:
            note(text)
        if original:
            model = vanilla_recipe(found.recipe)
            write = partial(export_baseline, found.recipe, options=options, kind=kind, weights=found)  # type: ignore[arg-type]
        else:
            model, write = found.recipe, partial(export_onnx, found, options=options)
    path = output or Path(default_name(model, options))
    if building is None:
        result = _with_progress(partial(write, force=force), path)
        built = None
    else:
        from ..building.build import export_engine

        result, built = export_engine(
            output or path.with_suffix(".engine"),
            partial(_with_progress, write),
            partial(build_with_progress, options=building, verify=verify),
            force=force,
        )
    exported = {"path": str(result.path), "json": str(result.json_path), **result.manifest}
    if json and built is None:
        print_json(exported)
    elif json and built is not None:
        print_json({**build_document(built), "export": exported})
    else:
        _show(result, options)
        if built is not None:
            show_build(built)


def _build_options(
    format_: Format, output: Path | None, given: dict[str, Any], static: int | None, precision: Precision | None
) -> BuildOptions | None:
    """What to build with; None for ONNX. Mistakes show here, before anything takes time.

    Raises:
        InputError: Engine options without an engine, a file name of another format, or batches that do not go together.
        EngineError: No TensorRT that could build it.
    """
    from ..building.build import check_target
    from ..building.profiles import BuildProfile, load_profile
    from ..engines.registry import opener

    if format_ is Format.onnx:
        unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if unused:
            raise InputError(f"{', '.join(unused)}: only an engine has that; add --format engine.")
        if output is not None and (row := opener(output)).kind != "onnx":
            fix = "add --format engine, or name it" if row.built else "name it"
            raise InputError(f"-o {output} is not a name for an ONNX file: {fix} {output.with_suffix('.onnx')}.")
        return None
    profile = given.pop("profile")
    base = load_profile(profile) if profile is not None else BuildProfile("", "", "")
    wanted = precision.value if precision else base.options.precision or "fp16"
    options = base.with_options(batch=static, precision=wanted, **given)
    check_target(options)
    return options


def _with_progress(write: Callable[..., ExportResult], path: Path) -> ExportResult:
    with progress() as bar:
        task = bar.add_task("exporting", total=4)
        return write(path=path, step=lambda text: bar.update(task, description=text, advance=1))


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--batch {text!r}; give `dynamic` or a number from 1.")
    return int(text)


def _show(result: ExportResult, options: ExportOptions) -> None:
    from rich.markup import escape

    from ._parity import parity_table

    console, manifest = out(), result.manifest
    size = result.path.stat().st_size / 1e6
    batch = "dynamic" if manifest["batch"] is None else manifest["batch"]
    weights = " [yellow](random weights)[/]" if manifest["weights"]["random"] else ""
    console.print(
        f"[bold]{escape(str(result.path))}[/]  {size:.1f} MB  {escape(manifest['name'])}{weights}  {manifest['precision']}  "
        f"input {manifest['input']}  batch {batch}  opset {manifest['opset']}  outputs {', '.join(manifest['outputs'])}",
        soft_wrap=True,
    )
    if result.parity is None:
        console.print("parity: [yellow]not proven[/] (--no-verify)")
    else:
        console.print(parity_table(result.parity, "ONNX Runtime CPU against the FP32 PyTorch model"))

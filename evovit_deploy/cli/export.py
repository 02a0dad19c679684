"""`evovit export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import _completion as complete
from . import _options as shared
from ._choices import AttentionForm, BaselineKind, Format, ImageInput, Pool, Precision, SelectionPattern
from ._console import note, out, print_json, progress
from ._groups import grouped
from ._mended import show_mended
from ._shared import Building, Understood
from ._values import batch_size, batch_sizes, word, words
from .build import show_build

if TYPE_CHECKING:
    from ..building.inductor import InductorResult
    from ..checkpoint.options import CheckpointOptions
    from ..export import ExportOptions, ExportResult
    from ..export.gates import ParityReport

__all__ = ["export"]

GRAPH, NO_CHECKPOINT = "Graph", "Without a checkpoint"


@dataclass(frozen=True)
class Graph:
    """What the ONNX file is."""

    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Weights and activations; scores stay FP32. Default: fp32, and fp16 for an engine.",
            rich_help_panel=GRAPH,
        ),
    ] = None
    batch: Annotated[
        str,
        typer.Option(
            metavar="dynamic|N", help="Any batch size, or this one only; 1,8,64 for inductor.", rich_help_panel=GRAPH
        ),
    ] = "dynamic"
    input_: Annotated[
        ImageInput,
        typer.Option(
            "--input",
            help="float32: [B, 3, S, S], normalised. uint8: [B, S, S, 3], as decoded.",
            rich_help_panel=GRAPH,
        ),
    ] = ImageInput.float32
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="logits,kept",
            autocompletion=complete.outputs,
            help="What the model returns: logits, probabilities, kept (the selected patches), sources and sizes (of merged "
            "tokens), embedding, class_token, patch_tokens, blocks=3,6,9 (patch tokens after these blocks), "
            "norm_blocks=3,6,9. Default: logits; embedding of a model without a head.",
            rich_help_panel=GRAPH,
        ),
    ] = None
    selection: Annotated[
        SelectionPattern,
        typer.Option(help="How patches are selected; all patterns keep the same ones.", rich_help_panel=GRAPH),
    ] = SelectionPattern.auto
    opset: Annotated[
        int | None,
        typer.Option(
            metavar="18-23",
            help="ONNX opset. Default: 20, 22 for bf16, and 23 for --attention operator.",
            rich_help_panel=GRAPH,
        ),
    ] = None
    attention: Annotated[
        AttentionForm,
        typer.Option(
            help="plain: MatMul, Softmax, MatMul, which TensorRT fuses. operator: one node Attention, for ONNX Runtime on a GPU.",
            rich_help_panel=GRAPH,
        ),
    ] = AttentionForm.plain
    fold: Annotated[
        bool,
        typer.Option("--fold/--no-fold", help="Fold weights into fewer operations, exactly.", rich_help_panel=GRAPH),
    ] = True
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Prove parity before the file is kept.", rich_help_panel=GRAPH),
    ] = True

    islands: Annotated[
        str | None,
        typer.Option(
            metavar="auto|NAMES",
            help="Keep nodes in FP32 within FP16: auto finds the fewest that pass, none where FP16 does; or names, "
            "as `evovit diagnose` gives them.",
            rich_help_panel=GRAPH,
        ),
    ] = None

    def options(self) -> ExportOptions:
        """Return them as the library takes them; the precision is settled there."""
        from ..export import ExportOptions
        from ..models.options import ModelOptions
        from ..models.outputs import read_outputs

        outputs = () if self.outputs is None else read_outputs(self.outputs)
        model = ModelOptions("fp32", self.input_.value, self.selection.value, outputs, self.fold)  # type: ignore[arg-type]
        islands = "auto" if self.islands == "auto" else words(self.islands) if self.islands else ()
        return ExportOptions(
            model,
            batch_size(self.batch),
            self.opset,
            self.verify,
            islands,
            self.attention.value,  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Source(Understood):
    """How a checkpoint is understood, and what is exported without one."""

    img_size: shared.ImgSize = None
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Seeded random weights for --recipe.", rich_help_panel=NO_CHECKPOINT),
    ] = False
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of random weights.", show_default="0", rich_help_panel=NO_CHECKPOINT),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete.baselines,
            help="A vanilla model instead, such as deit_small_patch16_224 (see `evovit list baselines`).",
            rich_help_panel=NO_CHECKPOINT,
        ),
    ] = None
    baseline_kind: Annotated[
        BaselineKind | None,
        typer.Option(
            help="twin: folded. trimmed: dead work left out too. stock: as timm ships it. With --from-timm: export the "
            "original.",
            show_default="twin",
            rich_help_panel=NO_CHECKPOINT,
        ),
    ] = None
    weights: shared.TimmWeights = None
    pool: Annotated[
        Pool | None,
        typer.Option(
            help="Class token, or mean of the patches. Default: as the weights or timm say.",
            rich_help_panel=shared.TIMM,
        ),
    ] = None

    def understood(self) -> CheckpointOptions:
        """Return how a checkpoint is understood."""
        return self.options(image_size=self.img_size, pool=word(self.pool))


@grouped
def export(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Checkpoint: .pth, .pt, .bin or .safetensors. With --from-timm the weights of that ViT.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write, .onnx, .engine or .pt2; its description goes beside it. Default: named after the model.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="engine: also build a TensorRT engine from the ONNX file; with --target inductor, that engine only.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = Format.onnx,
    *,
    graph: Graph,
    source: Source,
    building: Building,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Export a checkpoint to ONNX and prove it against the FP32 PyTorch model; build an engine if asked.

    Examples:
      evovit export ckpt.pth -o model.onnx
      evovit export ckpt.pth -o model.onnx --precision fp16 --outputs logits,kept
      evovit export ckpt.pth --format engine --max-batch 32
      evovit export ckpt.pth --format engine --target inductor --device cpu
      evovit export --recipe evo_deit_small_patch16_224 --random-weights
      evovit export --from-timm vit_small_patch16_224 --weights vit.pth --keep 0.7
      evovit export --from-timm vit_small_patch14_dinov2 --weights dinov2.pth --outputs embedding,blocks=5,11
    """
    from ..building.export import ExportJob
    from ..building.export import export as run
    from ..building.inductor import InductorResult
    from ..export.source import ExportSource

    job = ExportJob(
        ExportSource(
            checkpoint,
            source.understood(),
            source.weights,
            source.random_weights,
            source.seed,
            source.baseline,
            word(source.baseline_kind),
        ),
        graph.options(),
        word(graph.precision),
        output,
        engine=format_ is Format.engine,
        profile=building.profile,
        build=building.fields(),
        device=word(building.device),
        sizes=batch_sizes(graph.batch),
        force=force,
    )
    with progress() as bar:
        task = bar.add_task("reading", total=None)
        exported = run(
            job,
            note=lambda text: note(text, bar),
            tell=lambda text, done, total: bar.update(task, description=text, completed=done, total=total),
        )
    if json:
        print_json(exported.to_dict())
        return
    if exported.onnx is not None:
        _show(exported.onnx)
    if isinstance(exported.engine, InductorResult):
        _show_inductor(exported.engine)
    elif exported.engine is not None:
        show_build(exported.engine)


def _show(result: ExportResult) -> None:
    from rich.markup import escape

    manifest = result.manifest
    size = result.path.stat().st_size / 1e6
    batch = "dynamic" if manifest["batch"] is None else manifest["batch"]
    weights = " [yellow](random weights)[/]" if manifest["weights"]["random"] else ""
    opset = f"{manifest['opset']}{'  attention operator' if manifest.get('attention') == 'operator' else ''}"
    out().print(
        f"[bold]{escape(str(result.path))}[/]  {size:.1f} MB  {escape(manifest['name'])}{weights}  {manifest['precision']}  "
        f"input {manifest['input']}  batch {batch}  opset {opset}  outputs {', '.join(manifest['outputs'])}",
        soft_wrap=True,
    )
    if manifest.get("islands") or manifest.get("scales"):
        show_mended(manifest, result.path)
    _show_parity(result.parity, "ONNX Runtime CPU against the FP32 PyTorch model")


def _show_inductor(result: InductorResult) -> None:
    from rich.markup import escape

    d, model = result.manifest, result.manifest["model"]
    batch = ", ".join(map(str, d["batch"]["sizes"])) or f"{d['batch']['min']} to {d['batch']['max']}"
    weights = " [yellow](random weights)[/]" if model["weights"]["random"] else ""
    out().print(
        f"[bold]{escape(str(result.path))}[/]  {d['package']['bytes'] / 1e6:.1f} MB  {escape(d['name'])}{weights}  "
        f"{d['precision']}  input {model['input']}  batch {batch}  {d['machine']['device']}  PyTorch {d['torch']}  "
        f"{d['build_seconds']:.1f} s",
        soft_wrap=True,
    )
    _show_parity(result.parity, "inductor against the FP32 PyTorch model")


def _show_parity(parity: ParityReport | None, title: str) -> None:
    from ._parity import parity_table

    if parity is None:
        out().print("parity: [yellow]not proven[/] (--no-verify)")
    else:
        out().print(parity_table(parity, title))

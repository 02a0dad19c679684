"""`evovit build`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _options as shared
from ._choices import Hardware, Precision, Tiling
from ._console import note, out, print_json, progress
from ._groups import grouped
from ._values import word, words

if TYPE_CHECKING:
    from ..building.build import BuildResult
    from ..engines.trt.options import BuildOptions

__all__ = ["batch_sizes", "build", "plan_rows", "show_build"]

BATCHES, CHECKS, TENSORRT, TIME = "Batch", "Checks", "Full TensorRT only", "Build time, full TensorRT only"


@dataclass(frozen=True)
class Asked:
    """What `evovit build` asks of an engine."""

    target: shared.Target = None
    profile: shared.Profile = None
    precision: Annotated[
        Precision | None,
        typer.Option(help="Refuse an ONNX file of a different precision.", rich_help_panel=shared.ENGINE),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(metavar="N", help="Static batch size; the plan is leaner.", rich_help_panel=BATCHES),
    ] = None
    min_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Smallest batch. Default: 1.", rich_help_panel=BATCHES)
    ] = None
    opt_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Batch to tune for. Default: 8.", rich_help_panel=BATCHES)
    ] = None
    max_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Largest batch. Default: 64.", rich_help_panel=BATCHES)
    ] = None
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Compare the outputs where the engine can run.", rich_help_panel=CHECKS
        ),
    ] = True
    require_fused_attention: Annotated[
        bool,
        typer.Option(
            "--require-fused-attention", help="Exit 3 unless every attention is one kernel.", rich_help_panel=CHECKS
        ),
    ] = False
    max_kernels: Annotated[
        int | None, typer.Option(metavar="N", help="Exit 3 if the plan has more kernels.", rich_help_panel=CHECKS)
    ] = None
    optimization_level: Annotated[
        int | None,
        typer.Option(metavar="0-5", help="How long to search for kernels.", rich_help_panel=TIME),
    ] = None
    hardware_compatibility: Annotated[
        Hardware | None,
        typer.Option(
            metavar="GPUS",
            help="Other GPUs that may run the engine: none, ampere+ or same-compute-capability.",
            rich_help_panel=TENSORRT,
        ),
    ] = None
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible", help="Let newer minor versions load the engine.", rich_help_panel=TENSORRT
        ),
    ] = False
    tiling: Annotated[
        Tiling | None,
        typer.Option(
            metavar="LEVEL", help="Tiling for the L2 cache: none, fast, moderate or full.", rich_help_panel=TIME
        ),
    ] = None
    timing_cache: Annotated[
        bool,
        typer.Option(
            "--timing-cache/--no-timing-cache",
            help="Reuse kernel timings.",
            rich_help_panel=TIME,
        ),
    ] = True
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="8.6,12.0",
            help="GPUs to build for; TensorRT-RTX only. Default: 8.0 and newer.",
            rich_help_panel=shared.ENGINE,
        ),
    ] = None
    workspace_mib: Annotated[
        int | None,
        typer.Option(metavar="MIB", help="Limit of scratch memory.", rich_help_panel=shared.ENGINE),
    ] = None
    refit: Annotated[
        bool, typer.Option("--refit", help="Let the weights be replaced later.", rich_help_panel=shared.ENGINE)
    ] = False
    strip_plan: Annotated[
        bool,
        typer.Option(
            "--strip-plan",
            help="Leave the weights out; they are read from the ONNX file.",
            rich_help_panel=shared.ENGINE,
        ),
    ] = False

    def options(self) -> BuildOptions:
        """Return them as the library takes them, over those of the profile."""
        from ..building.profiles import BuildProfile, load_profile

        base = BuildProfile("", "", "") if self.profile is None else load_profile(self.profile)
        capabilities = self.compute_capability
        return base.with_options(
            target=word(self.target),
            batch=self.batch,
            min_batch=self.min_batch,
            opt_batch=self.opt_batch,
            max_batch=self.max_batch,
            precision=word(self.precision),
            require_fused_attention=self.require_fused_attention or None,
            max_kernels=self.max_kernels,
            optimization_level=self.optimization_level,
            workspace_mib=self.workspace_mib,
            hardware_compatibility=word(self.hardware_compatibility),
            version_compatible=self.version_compatible or None,
            tiling=word(self.tiling),
            compute_capabilities=None if capabilities is None else words(capabilities),
            refit=self.refit or None,
            strip_plan=self.strip_plan or None,
            timing_cache=None if self.timing_cache else False,
        )


@grouped
def build(
    onnx: Annotated[
        Path, typer.Argument(metavar="ONNX", help="ONNX file, such as from `evovit export --precision fp16`.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Engine to write; its manifest goes beside it. Default: X.engine and X.engine.json.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    *,
    asked: Asked,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Build a TensorRT engine from an ONNX file and report what is in its plan.

    From a checkpoint in one go: evovit export CHECKPOINT --format engine

    Examples:
      evovit build model.onnx
      evovit build model.onnx --profile l4 --max-batch 32 --require-fused-attention
    """
    from ..building.build import build_engine

    with progress() as bar:
        task = bar.add_task("building", total=1)
        result = build_engine(
            onnx,
            output,
            asked.options(),
            progress=lambda phase, share: bar.update(task, description=phase.lower(), completed=share),
            prove=asked.verify,
            force=force,
        )
    if json:
        print_json(result.to_dict())
    else:
        show_build(result)


def show_build(result: BuildResult) -> None:
    """Print the engine, its plan report, and how its outputs compare."""
    from rich.markup import escape
    from rich.table import Table

    from ._parity import parity_table

    d, report, console = result.manifest, result.report, out()
    weights = " [yellow](random weights)[/]" if ((d["model"] or {}).get("weights") or {}).get("random") else ""
    console.print(
        f"[bold]{escape(str(result.path))}[/]  {d['plan']['bytes'] / 1e6:.1f} MB  {escape(d['name'])}{weights}  "
        f"{d['precision']}  batch {batch_sizes(d['batch'])}  {d['flavour']} {d['version']}  {result.seconds:.1f} s",
        soft_wrap=True,
    )
    table = Table(title="plan", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in plan_rows(report.to_dict()):
        table.add_row(name, escape(value))
    console.print(table)
    if result.parity is not None:
        console.print(parity_table(result.parity, f"{d['flavour']} against the reference"))
    for text in result.notes:
        note(text)


def batch_sizes(batch: dict[str, int]) -> str:
    """Return ``1/8/64`` for a batch profile (its JSON form), ``8`` for a static one; also for `evovit inspect`."""
    return str(batch["max"]) if batch["min"] == batch["max"] else f"{batch['min']}/{batch['opt']}/{batch['max']}"


def plan_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a plan report (its JSON form, as the manifest holds it); also for `evovit inspect`."""
    attention, selection = report["attention"], report["selection"]
    missing = f" (not in {', '.join(attention['unfused'])})" if attention["unfused"] else ""
    return [
        ("kernels", str(report["kernels"])),
        ("fused attention", f"{attention['fused']} of {attention['total']}{missing}"),
        ("results written in", ", ".join(f"{name} {count}" for name, count in report["precisions"].items())),
        ("token selection", f"in {len(selection['kernels'])} kernels, {selection['only']} of which do nothing else"),
        ("layer types", ", ".join(f"{name} {count}" for name, count in report["types"].items())),
        ("weights", _bytes(report["weights_bytes"])),
        ("activations", _bytes(report["activation_bytes"])),
    ]


def _bytes(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e6:.1f} MB"

"""`evovit build`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._choices import Force, Target
from ._console import out, print_json, progress
from ._model import note

if TYPE_CHECKING:
    from ..engines.build import BuildResult
    from ..engines.options import BuildOptions

__all__ = ["batch_sizes", "build", "build_document", "build_with_progress", "plan_rows", "show_build"]


class Precision(str, Enum):
    """Precision that the ONNX file must have."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Hardware(str, Enum):
    """Hardware compatibility of full TensorRT."""

    none = "none"
    ampere_plus = "ampere+"
    same = "same-compute-capability"


class Tiling(str, Enum):
    """Tiling level of full TensorRT."""

    none = "none"
    fast = "fast"
    moderate = "moderate"
    full = "full"


def build(
    onnx: Annotated[Path, typer.Argument(metavar="ONNX", help="ONNX file, from `evovit export --precision fp16`.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Plan to write; its manifest lands beside it, X.engine.json.")
    ] = None,
    target: Annotated[
        Target | None, typer.Option(help="auto: TensorRT where it and a GPU are found, else TensorRT-RTX.")
    ] = None,
    profile: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Build profile, such as h100 or l4.")] = None,
    batch: Annotated[int | None, typer.Option(help="Static batch size; the plan is leaner.")] = None,
    min_batch: Annotated[int | None, typer.Option(help="Smallest batch. Default 1.")] = None,
    opt_batch: Annotated[int | None, typer.Option(help="Batch the engine is tuned for. Default 8.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Largest batch. Default 64.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Refuse an ONNX file of another precision.")] = None,
    require_fused_attention: Annotated[
        bool, typer.Option("--require-fused-attention", help="Exit 3 unless every attention is one kernel.")
    ] = False,
    max_kernels: Annotated[int | None, typer.Option(help="Exit 3 if the plan has more kernels.")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="0 to 5: how long to search. TensorRT.")] = None,
    workspace_mib: Annotated[int | None, typer.Option(help="Limit of scratch memory, MiB.")] = None,
    hardware_compatibility: Annotated[
        Hardware | None, typer.Option(help="Other GPUs that may run it. TensorRT.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Newer minor versions may load it. TensorRT.")
    ] = False,
    tiling: Annotated[Tiling | None, typer.Option(help="Tiling for the L2 cache. TensorRT.")] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="GPUs to build for, such as 8.6,12.0. TensorRT-RTX; default 8.0 and newer.")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Let the weights be replaced.")] = False,
    strip_plan: Annotated[
        bool, typer.Option("--strip-plan", help="Leave the weights out; they come from the ONNX file.")
    ] = False,
    timing_cache: Annotated[
        bool, typer.Option("--timing-cache/--no-timing-cache", help="Reuse kernel timings. TensorRT.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the outputs where the engine can run.")
    ] = True,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Build a TensorRT engine from an ONNX file and report what is in its plan.

    For example: evovit build model.onnx --profile l4 --max-batch 32 --require-fused-attention

    From a checkpoint in one go: evovit export CKPT --format engine
    """
    from ..engines.profiles import BuildProfile, load_profile

    base = load_profile(profile) if profile is not None else BuildProfile("", "", "")
    options = base.with_options(
        target=_value(target),
        batch=batch,
        min_batch=min_batch,
        opt_batch=opt_batch,
        max_batch=max_batch,
        precision=_value(precision),
        require_fused_attention=require_fused_attention or None,
        max_kernels=max_kernels,
        optimization_level=optimization_level,
        workspace_mib=workspace_mib,
        hardware_compatibility=_value(hardware_compatibility),
        version_compatible=version_compatible or None,
        tiling=_value(tiling),
        compute_capabilities=None if compute_capability is None else _list(compute_capability),
        refit=refit or None,
        strip_plan=strip_plan or None,
        timing_cache=None if timing_cache else False,
    )
    result = build_with_progress(onnx, output, options, verify=verify, force=force)
    if json:
        print_json(build_document(result))
    else:
        show_build(result)


def build_with_progress(
    onnx: Path, output: Path | None, options: BuildOptions, *, verify: bool = True, force: bool = False
) -> BuildResult:
    """Build with a bar on stderr; also what `evovit export --format engine` calls."""
    from ..engines.build import build_engine

    with progress() as bar:
        task = bar.add_task("building", total=100)

        def report(phase: str, fraction: float) -> None:
            bar.update(task, description=phase.lower(), completed=100 * fraction)

        return build_engine(onnx, output, options, progress=report, prove=verify, force=force)


def build_document(result: BuildResult) -> dict[str, Any]:
    """The manifest as written, where it is, and the notes; for `--json`."""
    return {"path": str(result.path), **result.manifest, "notes": list(result.notes)}


def show_build(result: BuildResult) -> None:
    """The engine, its plan report, and how its outputs compare."""
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
    """``1/8/64`` for a batch profile (its JSON form), ``8`` for a static one; also for `evovit inspect`."""
    return str(batch["max"]) if batch["min"] == batch["max"] else f"{batch['min']}/{batch['opt']}/{batch['max']}"


def plan_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of a plan report (its JSON form, as the manifest holds it); also for `evovit inspect`."""
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


def _value(choice: Enum | None) -> Any:
    return None if choice is None else choice.value


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _bytes(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e6:.1f} MB"

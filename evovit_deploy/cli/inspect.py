"""`evovit inspect`: what a checkpoint, an ONNX file or an engine holds."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models.families import evolves, label_of
from . import _options as shared
from ._console import out, print_json, progress
from ._groups import grouped
from ._shared import Understood

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["inspect"]


@grouped
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Checkpoint (.pth, .pt, .bin, .safetensors), ONNX file or engine (.engine, .plan, .trt, .pt2).",
        ),
    ],
    *,
    understood: Understood,
    json: shared.Json = False,
) -> None:
    """Show what a checkpoint, an ONNX file or an engine holds: model, sizes, schedule, precision, inputs and outputs.

    For a TensorRT engine also its plan: kernels, fused attention, memory. Needs neither TensorRT nor a GPU.

    Examples:
      evovit inspect ckpt.pth
      evovit inspect model.engine --json
    """
    from ..describe import describe

    with progress() as bar:
        task = bar.add_task(f"reading {file.name}", total=1)
        document = describe(file, understood.options())
        bar.update(task, completed=1)
    if json:
        print_json(document)
        return
    console = out()
    known = {"onnx": _onnx_tables, "engine": _engine_tables, "checkpoint": _checkpoint_tables}
    for table in known.get(document["kind"], _plain_tables)(document):
        console.print(table)
    for note in document.get("notes", ()):
        console.print(f"- {note}", markup=False)


def _table(title: str, rows: list[tuple[str, Any]]) -> Table:
    """Two columns; rows without a value are left out. Text of the file is shown as it is, not read as markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", []):
            table.add_row(name, Text(str(value)))
    return table


def _checkpoint_tables(document: dict[str, Any]) -> list[Table]:
    d = document
    rows = [
        ("family", label_of(d["family"])),
        ("recipe", d["recipe"]),
        ("size", d["size"] or "custom"),
        ("embed dim", f"{_each(d['embed_dim'])}, {_each(d['num_heads'])} heads, MLP ratio {d['mlp_ratio']:g}"),
        ("key dim", d.get("key_dim")),
        ("depth", f"{_each(d['depth'])} blocks"),
        ("image size", f"{d['image_size']} px"),
        ("patch", f"{d['patch_size']} px, {_each(d['num_patches'])} patches"),
        ("classes", d["num_classes"] or "none, there is no classification head"),
        ("parameters", f"{d['parameters']:,}"),
        ("stored dtype", d["stored_dtype"]),
        ("weights from", d["source"]),
        ("epoch", d["epoch"]),
        ("trained as", d["args"].get("model")),
        ("SHA-256", d["sha256"]),
    ]
    return [_table(str(d["path"]), rows), _schedule_table(d)]


def _each(value: Any) -> str:
    """A number, or one per stage: `128 / 256 / 384`."""
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def _runs(values: list[float]) -> str:
    """`1 x4, 0.5 x8` for values one per block."""
    return ", ".join(f"{value:g} x{len(list(same))}" for value, same in groupby(values))


def _schedule_table(document: dict[str, Any]) -> Table:
    schedule = str(document["schedule"])
    if schedule == "stage" and document.get("stage_starts"):
        schedule += f", stages start at block {' and '.join(map(str, document['stage_starts']))}"
    if document.get("places"):
        schedule = f"in blocks {', '.join(map(str, document['places']))}"
    rows = [("schedule", schedule)]
    rows += [
        (words, _runs(document[key])) for key, words in (("keep_ratios", "keep ratios"), ("r", "r")) if key in document
    ]
    if "tradeoff" in document:
        rows.append(("tradeoff", _tradeoff(document["tradeoff"])))
    for group in document["groups"]:
        first, last = group["first_block"], group["last_block"]
        name = f"block {first}" if first == last else f"blocks {first}-{last}"
        registers = document.get("registers") or 0
        first_tokens = "class token" + (f", {registers} registers" if registers else "")
        text = f"{first_tokens} and {group['patches']} {'selected' if group['selects'] else 'patch'} tokens"
        if "stage" in group:
            name = f"stage {group['stage']}, {name}"
            text += ", and one for the rest" if group["selects"] else ""
        elif group.get("fused"):
            text += ", and one for the rest"
        if group.get("merges"):
            text += f", of which {group['merges']} are merged"
        if group["class_attention"]:
            text += f"; class attention in {', '.join(map(str, group['class_attention']))}"
        rows.append((name, text))
    return _table("Token evolution", rows)


def _tradeoff(values: list[float] | None) -> str:
    return "learned" if values is None else _runs(values)


def _shape(shape: list[int | str] | None) -> str:
    return "of unknown shape" if shape is None else f"[{', '.join(map(str, shape))}]"


def _onnx_tables(document: dict[str, Any]) -> list[Table]:
    d, manifest = document, document["manifest"] or {}
    weights = manifest.get("weights") or {}
    batch = "dynamic" if manifest.get("batch") is None else manifest["batch"]
    parity = d["parity"] if isinstance(d["parity"], dict) else {}
    rows: list[tuple[str, Any]] = [
        ("exported by evovit", "yes" if d["exported_by_evovit"] else "no (not exported by evovit)"),
        ("model", manifest.get("name")),
        ("family", manifest.get("family")),
        ("weights from", weights.get("source")),
        ("precision", d["precision"]),
        ("batch", batch if manifest else None),
        ("selection", manifest.get("selection")),
        ("attention", manifest.get("attention")),
        ("proven at export", {True: "yes", False: "no"}.get(parity.get("passed"))),  # type: ignore[arg-type]
        ("opset", ", ".join(f"{domain} {version}" for domain, version in d["opsets"].items())),
        ("producer", d["producer"]),
        ("file size", f"{d['bytes'] / 2**20:.1f} MiB"),
        ("parameters", ", ".join(f"{count:,} {dtype}" for dtype, count in d["parameters"].items())),
        ("SHA-256", d["sha256"]),
    ]
    tables = [_table(str(d["path"]), rows)]
    ports = [
        (name, f"{port['name']}: {port['dtype']} {_shape(port['shape'])}")
        for name, ports in (("input", d["inputs"]), ("output", d["outputs"]))
        for port in ports
    ]
    tables.append(_table("Inputs and outputs", ports))
    tables.append(_table(f"{d['node_count']} nodes", list(d["nodes"].items())))
    if "groups" in d and evolves(manifest.get("family")):
        tables.append(_schedule_table(d))
    return tables


def _engine_tables(document: dict[str, Any]) -> list[Table]:
    from .build import batch_sizes, plan_rows

    d, manifest = document, document["manifest"] or {}
    model = manifest.get("model") or {}
    gpu, capabilities = manifest.get("gpu") or {}, manifest.get("compute_capabilities")
    if manifest and not capabilities:  # only TensorRT-RTX has a default
        capabilities = ["8.0 and newer"]
    rows: list[tuple[str, Any]] = [
        ("model", manifest.get("name")),
        ("weights from", (model.get("weights") or {}).get("source")),
        ("TensorRT", f"{d['flavour']} {d['version']}"),
        ("precision", manifest.get("precision")),
        ("batch", batch_sizes(manifest["batch"]) if manifest else None),
        ("compute capability", ", ".join(capabilities) if capabilities else None),
        ("built on", gpu.get("name") if gpu else "a machine without a GPU" if manifest else None),
        ("built from", manifest["onnx"]["file"] if manifest else None),
        ("status", manifest.get("status")),
        ("file size", f"{d['bytes'] / 2**20:.1f} MiB"),
        ("SHA-256", d["sha256"]),
    ]
    tables = [_table(str(d["path"]), rows)]
    if io := manifest.get("io"):
        ports = [("input", f"{io['input']['name']}: {io['input']['dtype']} {_batched(io['input']['shape'])}")]
        ports += [("output", f"{name}: {_batched(shape)}") for name, shape in io["outputs"].items()]
        tables.append(_table("Inputs and outputs", ports))
    if report := manifest.get("report"):
        tables.append(_table("Plan", plan_rows(report)))
    if "groups" in d and evolves(model.get("family")):
        tables.append(_schedule_table(d))
    return tables


def _plain_tables(document: dict[str, Any]) -> list[Table]:
    """What a backend that has no tables of its own says of its file."""
    rows = [(name.replace("_", " "), value) for name, value in document.items() if not isinstance(value, (dict, list))]
    return [_table(str(document.get("path", "")), rows)]


def _batched(shape: list[int | None]) -> str:
    """A dynamic size, which is the batch, by name."""
    return _shape(["batch" if size is None else size for size in shape])

"""`evovit inspect`: what a checkpoint or an ONNX file holds."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import out, print_json, progress

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["inspect"]


def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Checkpoint (.pth, .pt, .bin, .safetensors) or ONNX file.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Recipe with the keep ratios and heads of a checkpoint.")
    ] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads, where nothing else says it.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Look at the averaged weights (model_ema).")] = False,
) -> None:
    """Say what a checkpoint or an ONNX file holds: model, sizes, schedule, precision, inputs and outputs."""
    from rich.markup import escape

    from ..describe import describe

    with progress() as bar:
        task = bar.add_task(f"reading {escape(file.name)}", total=1)
        document = describe(file, recipe=recipe, num_heads=num_heads, ema=ema)
        bar.update(task, completed=1)
    if json:
        print_json(document)
        return
    console = out()
    for table in _onnx_tables(document) if document["kind"] == "onnx" else _checkpoint_tables(document):
        console.print(table)
    for note in document["notes"]:
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
    families = {"evo_deit": "Evo-DeiT", "deit": "DeiT", "evo_levit": "Evo-LeViT", "levit": "LeViT"}
    family = families.get(d["family"], d["family"])
    rows = [
        ("family", family),
        ("recipe", d["recipe"]),
        ("size", d["size"] or "custom"),
        ("embed dim", f"{_each(d['embed_dim'])}, {_each(d['num_heads'])} heads, MLP ratio {d['mlp_ratio']:g}"),
        ("key dim", d.get("key_dim")),
        ("depth", f"{_each(d['depth'])} blocks"),
        ("image size", f"{d['image_size']} px"),
        ("patch", f"{d['patch_size']} px, {_each(d['num_patches'])} patches"),
        ("classes", d["num_classes"]),
        ("parameters", f"{d['parameters']:,}"),
        ("stored dtype", d["stored_dtype"]),
        ("weights from", d["source"]),
        ("epoch", d["epoch"]),
        ("trained as", d["args"].get("model")),
        ("SHA-256", d["sha256"]),
    ]
    return [_table(str(d["path"]), rows), _schedule_table(d)]


def _each(value: Any) -> str:
    """A number, or one a stage: `128 / 256 / 384`."""
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def _runs(values: list[float]) -> str:
    """`1 x4, 0.5 x8` for values one a block."""
    return ", ".join(f"{value:g} x{len(list(same))}" for value, same in groupby(values))


def _schedule_table(document: dict[str, Any]) -> Table:
    schedule = str(document["schedule"])
    if schedule == "stage" and document.get("stage_starts"):
        schedule += f", stages start at block {' and '.join(map(str, document['stage_starts']))}"
    rows = [
        ("schedule", schedule),
        ("keep ratios", _runs(document["keep_ratios"])),
        ("tradeoff", "learned" if document["tradeoff"] is None else _runs(document["tradeoff"])),
    ]
    for group in document["groups"]:
        first, last = group["first_block"], group["last_block"]
        name = f"block {first}" if first == last else f"blocks {first}-{last}"
        text = f"class token and {group['patches']} {'selected' if group['selects'] else 'patch'} tokens"
        if "stage" in group:
            name = f"stage {group['stage']}, {name}"
            text += ", and one for the rest" if group["selects"] else ""
        if group["class_attention"]:
            text += f"; class attention in {', '.join(map(str, group['class_attention']))}"
        rows.append((name, text))
    return _table("Token evolution", rows)


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
    if "groups" in d and str(manifest.get("family")).startswith("evo_"):
        tables.append(_schedule_table(d))
    return tables

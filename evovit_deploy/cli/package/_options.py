"""What the commands of `evovit package` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...storage.files import printable
from .._console import note, out, print_json
from .._options import (
    BATCHING,
    LIMITS,
    OUTPUT,
    RAY,
    RUN,
    Cpus,
    Drain,
    Force,
    Json,
    Labels,
    MaxDelayMs,
    MaxQueue,
    Replicas,
    ServedBatch,
    Threads,
)

__all__ = [
    "BATCHING",
    "LIMITS",
    "OUTPUT",
    "RAY",
    "RUN",
    "Cpus",
    "Drain",
    "Force",
    "Json",
    "Labels",
    "MaxDelayMs",
    "MaxQueue",
    "ModelName",
    "Packaged",
    "Replicas",
    "ServedBatch",
    "Template",
    "Threads",
    "note_name",
    "written",
]

Packaged = Annotated[
    Path, typer.Argument(metavar="MODEL", help="ONNX file, or a TensorRT engine with its manifest beside it.")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model-name",
        metavar="NAME",
        help="Name of the model in requests. Default: made of the file's.",
        rich_help_panel=OUTPUT,
    ),
]
Template = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Jinja2 template to use in place of the shipped one.", rich_help_panel=OUTPUT),
]


def note_name(model: Path, name: str, given: str | None) -> None:
    """Say that the name is not that of the file, which cannot name a model."""
    if given is None and name != model.stem:
        note(f"{printable(Path(model.name))} is called {name} in requests; --model-name gives it another name.")


def written(files: Sequence[Path], json: bool, **facts: Any) -> None:
    """Say which files were written."""
    if json:
        print_json({**facts, "files": [str(file) for file in files]})
    else:
        for file in files:
            out().print(str(file), markup=False, soft_wrap=True)

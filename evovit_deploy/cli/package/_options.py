"""What the commands of `evovit package` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .._choices import Force
from .._console import out, print_json

__all__ = [
    "Drain",
    "Force",
    "Gpu",
    "Json",
    "Labels",
    "MaxBatch",
    "MaxDelayMs",
    "MaxQueue",
    "Model",
    "Name",
    "Template",
    "Threads",
    "written",
]

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file, or a TensorRT plan with its manifest.")]
Name = Annotated[str | None, typer.Option("--model-name", help="Model name in requests; default: the file's stem.")]
Labels = Annotated[Path | None, typer.Option(help="Class names for /v1/classify, as for `evovit predict`.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Images in a batch; default: the model's most, or 32.")]
MaxDelayMs = Annotated[float, typer.Option(min=0, help="How long a request may wait for a fuller batch.")]
MaxQueue = Annotated[int, typer.Option(min=1, help="Images that may wait; beyond, requests get 503.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads within an operator.")]
Drain = Annotated[float, typer.Option(min=0, help="Seconds that accepted requests have after SIGTERM.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="For an NVIDIA GPU. A plan always is.")]
Template = Annotated[Path | None, typer.Option(help="A Jinja2 template of your own in place of the shipped one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def written(files: Sequence[Path], json: bool, **facts: Any) -> None:
    """Say which files were written."""
    if json:
        print_json({**facts, "files": [str(file) for file in files]})
    else:
        for file in files:
            out().print(str(file), markup=False, soft_wrap=True)

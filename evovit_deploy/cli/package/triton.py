"""`evovit package triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._choices import Force
from .._console import out, print_json

__all__ = ["triton"]


def triton(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file, or a TensorRT plan with its manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model repository; made if it is missing.")],
    name: Annotated[str | None, typer.Option(help="Model name; default: the file's stem.")] = None,
    model_version: Annotated[int, typer.Option(min=1, help="Version folder.")] = 1,
    labels: Annotated[Path | None, typer.Option(help="Class names, as for `evovit predict`.")] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Largest batch; default: the model's most, or 32.")
    ] = None,
    max_delay_us: Annotated[int, typer.Option(min=0, help="Microseconds to wait for a fuller batch.")] = 0,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 256,
    timeout_ms: Annotated[int, typer.Option(min=1, help="Milliseconds that a request may wait.")] = 1000,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model on each GPU.")] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the CPU (ONNX).")] = False,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Add a model to a repository of Triton Inference Server.

    Example: evovit package triton model.onnx -o repository --labels labels.txt
    """
    from ...extras import require
    from ...labels import read_labels
    from ...serve.triton import TritonOptions, package_triton, read_model

    require("serve", "a Triton repository", "tritonclient.grpc")
    names = None
    if labels is not None:
        names = [parts[-1] for parts in read_labels(labels, read_model(model).num_classes)]
    chosen = TritonOptions(
        name=name,
        version=model_version,
        max_batch=max_batch,
        max_delay_us=max_delay_us,
        max_queue=max_queue,
        timeout_ms=timeout_ms,
        instances=instances,
        cpu=cpu,
    )
    folder = package_triton(model, output, chosen, labels=names, force=force)
    files = sorted(str(path.relative_to(output)) for path in folder.rglob("*") if path.is_file())
    if json:
        print_json({"repository": str(output), "model": folder.name, "version": model_version, "files": files})
    else:
        for file in files:
            out().print(str(output / file), markup=False, soft_wrap=True)

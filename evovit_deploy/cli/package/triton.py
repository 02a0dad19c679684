"""`evovit package triton`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._console import out, print_json
from .._limits import ServiceSettings
from . import _options as shared

__all__ = ["triton"]


def triton(
    model: shared.Packaged,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Model repository; made if it is missing.",
            rich_help_panel=shared.OUTPUT,
        ),
    ],
    name: shared.ModelName = None,
    model_version: Annotated[
        int, typer.Option(min=1, metavar="N", help="Version folder.", rich_help_panel=shared.OUTPUT)
    ] = 1,
    labels: shared.Labels = None,
    max_batch: shared.ServedBatch = ServiceSettings.max_batch,
    max_delay_ms: shared.MaxDelayMs = ServiceSettings.max_delay_ms,
    max_delay_us: Annotated[int | None, typer.Option(min=0, hidden=True)] = None,
    max_queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests that may wait.", rich_help_panel=shared.LIMITS)
    ] = ServiceSettings.max_queue,
    timeout: Annotated[
        float,
        typer.Option(min=0.001, metavar="SECONDS", help="How long a request may wait.", rich_help_panel=shared.LIMITS),
    ] = 1.0,
    timeout_ms: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    instances: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Copies of the model on each GPU.", rich_help_panel=shared.RUN),
    ] = 1,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run on the CPU (ONNX).", rich_help_panel=shared.RUN)] = False,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Add a model to a repository of Triton Inference Server.

    Examples:
      evovit package triton model.onnx -o repository --labels labels.txt
      evovit package triton model.engine -o repository --max-delay-ms 0.5 --instances 2
    """
    from ...classes.labels import read_labels
    from ...machine.extras import require
    from ...packages.triton import TritonOptions, package_triton, read_model

    require("serve", "a Triton repository", "tritonclient.grpc")
    names = None
    if labels is not None:
        names = [parts[-1] for parts in read_labels(labels, read_model(model).num_classes)]
    chosen = TritonOptions(
        name=name,
        version=model_version,
        max_batch=max_batch,
        max_delay_us=round(1000 * max_delay_ms) if max_delay_us is None else max_delay_us,
        max_queue=max_queue,
        timeout_ms=round(1000 * timeout) if timeout_ms is None else timeout_ms,
        instances=instances,
        cpu=cpu,
    )
    folder = package_triton(model, output, chosen, labels=names, force=force)
    shared.note_name(model, folder.name, name)
    files = sorted(str(path.relative_to(output)) for path in folder.rglob("*") if path.is_file())
    if json:
        print_json({"repository": str(output), "model": folder.name, "version": model_version, "files": files})
    else:
        for file in files:
            out().print(str(output / file), markup=False, soft_wrap=True)

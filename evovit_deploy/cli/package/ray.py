"""`evovit package ray`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._ray import read_replicas
from . import _options as shared

__all__ = ["ray"]


def ray(
    model: shared.Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder with model and labels on every node; default: where they are here.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the application.")] = "evovit",
    host: Annotated[str, typer.Option(help="Address that each node listens on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port of each node.")] = 8000,
    replicas: Annotated[
        str, typer.Option(help="Copies of the service: a number, or MIN-MAX to follow the load.")
    ] = "1",
    cpus: Annotated[float, typer.Option(min=0, help="CPUs of each copy.")] = 1.0,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each copy; default: 0, and 1 for a plan.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File on every node with the bearer token that clients must send.")
    ] = None,
    model_name: shared.Name = None,
    labels: shared.Labels = None,
    max_batch: shared.MaxBatch = None,
    max_delay_ms: shared.MaxDelayMs = 0.0,
    max_queue: shared.MaxQueue = 256,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads within an operator; default: --cpus.")] = None,
    drain: shared.Drain = 30.0,
    template: shared.Template = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Write a config file for `serve deploy`, which runs the service on a Ray cluster.

    Example: evovit package ray model.onnx --folder /models --replicas 1-4 --cpus 2 -o model.yaml
    """
    from ...errors import InputError
    from ...serve.packages import ServiceOptions, ray_config, read_contents
    from ...serve.ray.options import RayOptions

    contents = read_contents(model, labels)
    if gpus is None:
        gpus = 1.0 if contents.is_plan else 0.0
    if contents.is_plan and not gpus:
        raise InputError(f"{model} is a TensorRT plan and runs on a GPU; --gpus 0 leaves it none.")
    service = ServiceOptions(
        name=model_name,
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        threads=threads,
        drain=drain,
    )
    service.arguments(contents)  # whether the model takes such batches

    def there(path: Path) -> str:
        return str(path.absolute() if folder is None else folder / path.name)

    options = RayOptions(
        models=(f"{service.model_name(model)}={there(model)}",),
        labels=None if labels is None else there(labels),
        provider="cpu" if not contents.is_plan and not gpus else "auto",
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        threads=threads,
        drain=drain,
        num_cpus=cpus,
        num_gpus=gpus,
        token_file=None if token_file is None else str(token_file),
        **read_replicas(replicas),
    )
    file = ray_config(options, output, name=name, host=host, port=port, template=template, force=force)
    shared.written([file], json, model=service.model_name(model), application=name)

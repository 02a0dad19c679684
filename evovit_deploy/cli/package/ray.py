"""`evovit package ray`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._groups import grouped
from .._ray import read_replicas
from . import _options as shared

__all__ = ["ray"]


@grouped
def ray(
    model: shared.Packaged,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="YAML file to write.", rich_help_panel=shared.OUTPUT),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of model and labels on every node. Default: where they are here.",
            rich_help_panel=shared.RAY,
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the application.", rich_help_panel=shared.RAY)
    ] = "evovit",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address that each node listens on; 0.0.0.0 for all of its own.",
            rich_help_panel=shared.RAY,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="HTTP port of each node.", rich_help_panel=shared.RAY)
    ] = 8000,
    replicas: shared.Replicas = "1",
    cpus: shared.Cpus = 1.0,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="N", help="GPUs per replica. Default: 0, and 1 for an engine.", rich_help_panel=shared.RAY
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File on every node with the bearer token that clients must send.",
            rich_help_panel=shared.RAY,
        ),
    ] = None,
    *,
    served: shared.ServedOnCpus,
    template: shared.Template = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Write a config file for `serve deploy`, which runs the service on a Ray cluster.

    Examples:
      evovit package ray model.onnx --folder /models --replicas 1-4 --cpus 2 -o model.yaml
    """
    from ...cluster.options import RayOptions
    from ...errors import InputError
    from ...packages import ray_config, read_contents

    contents = read_contents(model, served.labels)
    if gpus is None:
        gpus = 1.0 if contents.gpu_only else 0.0
    if contents.gpu_only and not gpus:
        raise InputError(f"{model} is a TensorRT engine and runs on a GPU; --gpus 0 leaves it none.")
    service = served.options()
    service.arguments(contents)  # whether the model takes such batches

    def there(path: Path) -> str:
        return str(path.absolute() if folder is None else folder / path.name)

    options = RayOptions(
        models=(f"{service.model_name(model)}={there(model)}",),
        labels=None if served.labels is None else there(served.labels),
        provider="cpu" if not contents.gpu_only and not gpus else "auto",
        **served.limits(),
        num_cpus=cpus,
        num_gpus=gpus,
        token_file=None if token_file is None else str(token_file),
        **read_replicas(replicas),
    )
    file = ray_config(options, output, name=name, host=host, port=port, template=template, force=force)
    shared.note_name(model, service.model_name(model), served.model_name)
    shared.written([file], json, model=service.model_name(model), application=name)

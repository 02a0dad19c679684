"""`evovit package container`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...storage.files import sha256
from .._console import note
from .._groups import grouped
from . import _options as shared

__all__ = ["container"]


@grouped
def container(
    model: shared.Packaged,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Folder to build the image in; made if it is missing.",
            rich_help_panel=shared.OUTPUT,
        ),
    ],
    *,
    served: shared.Served,
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="For an NVIDIA GPU; a TensorRT engine always is.", rich_help_panel=shared.RUN),
    ] = False,
    wheel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Wheel of evovit-deploy to install. Default: one made of what is installed here.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    template: shared.Template = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Write a folder that a container image with the service is built from.

    For a CPU the image has no torch in it. Versions are those that are installed here.

    Examples:
      evovit package container model.onnx -o image

    Then: docker build -f image/Containerfile -t model:1 image
    """
    from ...packages import container as write
    from ...packages import read_contents
    from ...packages.requirements import PACKAGE

    options = served.options(gpu=gpu)
    contents = read_contents(model, served.labels)
    files = write(contents, output, options, wheel=wheel, template=template, force=force)
    name = options.model_name(model)
    shared.note_name(model, name, served.model_name)
    packed = next(file for file in files if file.suffix == ".whl")
    facts = {"file": packed.name, "version": packed.name.split("-")[1], "sha256": sha256(packed)}
    if not json:
        note(f"the image gets {PACKAGE} {facts['version']} from {packed.name}, SHA-256 {facts['sha256']}")
    command = ["evovit", *options.arguments(contents)]
    shared.written(files, json, folder=str(output), model=name, command=command, wheel=facts)

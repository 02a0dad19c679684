"""`evovit package kubernetes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._console import err
from .._groups import grouped
from .._ray import read_replicas
from . import _options as shared

__all__ = ["kubernetes"]

CLUSTER = "Cluster"


@grouped
def kubernetes(
    model: shared.Packaged,
    image: Annotated[
        str,
        typer.Option(
            metavar="IMAGE",
            help="Image built from `evovit package container`, such as HOST/evovit:1.",
            rich_help_panel=CLUSTER,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="YAML file to write.", rich_help_panel=shared.OUTPUT),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the objects. Default: from the model's name.", rich_help_panel=CLUSTER
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Namespace. Default: what kubectl is told.", rich_help_panel=CLUSTER),
    ] = None,
    kserve: Annotated[
        bool,
        typer.Option("--kserve", help="An InferenceService, for a cluster with KServe.", rich_help_panel=CLUSTER),
    ] = False,
    replicas: Annotated[
        str,
        typer.Option(
            metavar="N|MIN-MAX", help="Pods: a number, or a range that follows the load.", rich_help_panel=CLUSTER
        ),
    ] = "2",
    cpus: Annotated[float, typer.Option(metavar="N", help="CPUs per pod.", rich_help_panel=CLUSTER)] = 2.0,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory per pod, such as 4Gi. Default: 2Gi, with a GPU 8Gi.", rich_help_panel=CLUSTER
        ),
    ] = None,
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu", help="One NVIDIA GPU per pod; a TensorRT engine always has one.", rich_help_panel=CLUSTER
        ),
    ] = False,
    token_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Secret whose key `token` holds the bearer token that clients must send.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    *,
    served: shared.ServedOnCpus,
    template: shared.Template = None,
    force: shared.Force = False,
    json: shared.Json = False,
) -> None:
    """Write manifests for Kubernetes: Deployment, Service, PodDisruptionBudget, and a HorizontalPodAutoscaler for a range.

    Give the same model, model name and labels as to `evovit package container`.

    Examples:
      evovit package kubernetes model.onnx --image registry.example.com/model:1 -o model.yaml
      evovit package kubernetes model.onnx --image registry.example.com/model:1 --replicas 2-6 -o model.yaml
    """
    from ...packages import Cluster, read_contents
    from ...packages import kubernetes as write

    counts = read_replicas(replicas)
    cluster = Cluster(
        image=image,
        name=name,
        namespace=namespace,
        min_replicas=counts.get("min_replicas", counts.get("num_replicas", 0)),
        max_replicas=counts.get("max_replicas", counts.get("num_replicas", 0)),
        cpus=cpus,
        memory=memory,
        token_secret=token_secret,
        kserve=kserve,
    )
    options = served.options(gpu=gpu)
    file = write(read_contents(model, served.labels), output, options, cluster, template=template, force=force)
    tag = image.rpartition("/")[2]
    if "@" not in image and (":" not in tag or tag.endswith(":latest")):
        err().print(
            f"note: {image} names no version, so pods may run different ones; give a tag or a digest.",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
    if token_secret is None:
        err().print(
            "note: whoever reaches the Service can use it; --token-secret asks for a token.",
            style="dim",
            soft_wrap=True,
        )
    shared.note_name(model, options.model_name(model), served.model_name)
    shared.written([file], json, model=options.model_name(model), image=image)

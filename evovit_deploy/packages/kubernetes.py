"""Manifests for Kubernetes: a Deployment with what belongs to it, or an InferenceService for KServe."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..engines.batching.batcher import DEFAULT_MAX_BATCH
from ..errors import InputError
from ..storage.files import printable
from .container import USER
from .contents import Contents
from .options import GRPC_PORT, HTTP_PORT, ServiceOptions, check_secret, dns_label
from .templates import render, write_file, written_by

__all__ = ["Cluster", "kubernetes"]

PRE_STOP = 5  # seconds until a pod that is going gets no new connections: what clusters need to tell every node
MARGIN = 10  # seconds between the end of the drain and SIGKILL; the service needs about four
CPU_TARGET = 70  # percent
IMAGE = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9._-]*(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
MEMORY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?")


@dataclass(frozen=True)
class Cluster:
    """Where and how often a service runs.

    Attributes:
        image: What ``docker build`` made of the container file, with its registry and tag.
        name: Of the objects; None makes one of the model's name.
        namespace: None leaves it to ``kubectl``.
        min_replicas, max_replicas: Pods; a range makes a HorizontalPodAutoscaler.
        cpus: CPUs that each pod asks for, and by default its engine's threads.
        memory: Of each pod, such as ``2Gi``; None is that on CPUs and 8Gi with a GPU, where CUDA takes its share.
        token_secret: Secret whose key ``token`` holds the bearer token.
        kserve: An InferenceService in place of Deployment, Service and the rest.
    """

    image: str
    name: str | None = None
    namespace: str | None = None
    min_replicas: int = 2
    max_replicas: int = 2
    cpus: float = 2.0
    memory: str | None = None
    token_secret: str | None = None
    kserve: bool = False

    def __post_init__(self) -> None:
        if not IMAGE.fullmatch(self.image):
            raise InputError(
                f"{self.image!r} is not the name of an image; give one such as registry.example.com/evovit:1."
            )
        if self.name is not None:
            dns_label(self.name, "")
        if self.namespace is not None and not NAMESPACE.fullmatch(self.namespace):
            raise InputError(
                f"{self.namespace!r} cannot be a namespace: at most 63 of a-z, 0-9 and '-', no '-' at an end."
            )
        if self.token_secret is not None:
            check_secret(self.token_secret)
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise InputError(
                f"replicas are {self.min_replicas} to {self.max_replicas}; give a number from 1, or a range."
            )
        if not 0 < self.cpus < math.inf:
            raise InputError(f"cpus is {self.cpus}; give more than 0.")
        if self.memory is not None and not MEMORY.fullmatch(self.memory):
            raise InputError(f"memory is {self.memory!r}; give a quantity of Kubernetes, such as 2Gi or 512Mi.")

    @property
    def autoscaled(self) -> bool:
        """Whether the number of pods follows the load."""
        return self.min_replicas < self.max_replicas


def kubernetes(
    contents: Contents,
    output: Path,
    options: ServiceOptions,
    cluster: Cluster,
    *,
    template: Path | None = None,
    force: bool = False,
) -> Path:
    """Write the manifests to one file, for an image built from :func:`~.container.container` of the same model.

    Args:
        contents: From :func:`~.contents.read_contents`.
        output: The file.
        options: How to serve. Without ``threads`` an engine on CPUs gets as many as the pod has CPUs.
        cluster: Where to run.
        template: In place of the shipped ``kubernetes.yaml.j2`` or ``kserve.yaml.j2``.
        force: Overwrite the file.

    Raises:
        InputError: Values that Kubernetes would refuse, or that contradict each other.
        OutputError: The file is there and ``force`` is not given, or it cannot be written.
    """
    gpu = options.gpu or contents.gpu_only
    if cluster.kserve and cluster.autoscaled and gpu:
        raise InputError("KServe scales by the use of CPUs, which says nothing of a GPU; give one number of replicas.")
    if options.threads is None and not gpu:
        options = replace(options, threads=math.ceil(cluster.cpus))  # ONNX Runtime would take every core of the node
    text = render(
        "kserve.yaml.j2" if cluster.kserve else "kubernetes.yaml.j2",
        template,
        header=f"{written_by('kubernetes')} for {printable(Path(contents.path.name))}",
        file=output.name,
        name=dns_label(cluster.name, options.model_name(contents.path)),
        model=options.model_name(contents.path),
        namespace=cluster.namespace,
        selector="serving.kserve.io/inferenceservice" if cluster.kserve else "app.kubernetes.io/name",
        image=cluster.image,
        arguments=json.dumps(options.arguments(contents)),
        container="kserve-container" if cluster.kserve else "evovit",  # the first is what KServe looks for
        http_name="http1" if cluster.kserve else "http",
        http_port=HTTP_PORT,
        grpc_port=GRPC_PORT,
        grpc=not cluster.kserve,
        gpu=gpu,
        cpus=f"{cluster.cpus:g}",
        memory=cluster.memory or ("8Gi" if gpu else "2Gi"),
        token_secret=cluster.token_secret,
        user=USER,
        pre_stop=PRE_STOP,
        grace=PRE_STOP + math.ceil(options.drain) + MARGIN,
        autoscaled=cluster.autoscaled,
        replicas=cluster.min_replicas,
        min_replicas=cluster.min_replicas,
        max_replicas=cluster.max_replicas,
        cpu_target=CPU_TARGET,
        queue_target=max(1, (options.max_batch or contents.max_batch or DEFAULT_MAX_BATCH) // 2),
    )
    return write_file(output, text, force=force)

"""How a packaged model is to be served, and the command line that does it: the same in a container file and in a manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..serve.limits import check_limits, limit, same
from ..storage.names import check_name, name_of
from .contents import Contents

__all__ = ["FOLDER", "GRPC_PORT", "HTTP_PORT", "ServiceOptions", "check_secret", "dns_label", "image_name"]

HTTP_PORT, GRPC_PORT = 8000, 8001
FOLDER = "/models"  # in the container
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035, which Kubernetes asks of the name of a Service
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # RFC 1123


@dataclass(frozen=True)
class ServiceOptions:
    """Options of ``evovit serve`` in a container; the defaults are its own.

    Attributes:
        name: Model name; None is made of the file's, see :func:`~evovit_deploy.storage.names.name_of`.
        max_batch: Images per batch; None is the engine's most, or 32.
        max_delay_ms: How long a request may wait for a fuller batch.
        max_queue: Images that may wait.
        threads: CPU threads of the engine; None is one for each core that the machine has, whatever the container may use.
        drain: Seconds that accepted requests have after SIGTERM.
        gpu: Run on a GPU; a plan always does.
    """

    name: str | None = None
    max_batch: int | None = same("max_batch")
    max_delay_ms: float = same("max_delay_ms")
    max_queue: int = same("max_queue")
    threads: int | None = limit(None, "CPU threads per operator.", least=1)
    drain: float = same("drain")
    gpu: bool = False

    def __post_init__(self) -> None:
        check_limits(self)
        if self.name is not None:
            check_name(self.name)

    def model_name(self, path: Path) -> str:
        """Return the model's name in requests."""
        return self.name or name_of(path)

    def files(self, contents: Contents) -> dict[str, Path]:
        """Name in :data:`FOLDER` -> file, the model first."""
        suffix = contents.path.suffix.lower()
        model = self.model_name(contents.path) + (suffix if contents.manifest is not None else ".onnx")
        found = {model: contents.path}
        if contents.manifest is not None:
            found[f"{model}.json"] = contents.manifest
        if contents.labels is not None:
            found["labels.txt"] = contents.labels
        return found

    def arguments(self, contents: Contents) -> list[str]:
        """Say what follows ``evovit`` on the command line.

        Raises:
            InputError: A batch that the model does not take.
        """
        if self.max_batch is not None and contents.max_batch is not None and self.max_batch > contents.max_batch:
            raise InputError(f"{contents.path} takes batches up to {contents.max_batch}, not {self.max_batch}.")
        model = next(iter(self.files(contents)))
        words = ["serve", f"{self.model_name(contents.path)}={FOLDER}/{model}", "--host", "0.0.0.0"]
        words += ["--port", str(HTTP_PORT), "--grpc-port", str(GRPC_PORT)]
        if contents.labels is not None:
            words += ["--labels", f"{FOLDER}/labels.txt"]
        if not contents.gpu_only:  # said, so that a GPU that is missing is an error and not a slow service
            words += ["--provider", "cuda" if self.gpu else "cpu"]
        for option, value in (("--threads", self.threads), ("--max-batch", self.max_batch)):
            if value is not None:
                words += [option, str(value)]
        if self.max_delay_ms:
            words += ["--max-delay-ms", f"{self.max_delay_ms:g}"]
        return [*words, "--max-queue", str(self.max_queue), "--drain", f"{self.drain:g}"]


def dns_label(name: str | None, default: str) -> str:
    """Return the name of a Kubernetes object.

    Args:
        name: As the user gave it, or None.
        default: To make one of in its place.

    Raises:
        InputError: ``name`` is none, or the default gives none.
    """
    found = re.sub(r"[^a-z0-9]+", "-", default.lower()).strip("-")[:63].rstrip("-") if name is None else name
    if not DNS_LABEL.fullmatch(found):
        raise InputError(
            f"{found!r} cannot name an object of Kubernetes: at most 63 of a-z, 0-9 and '-', the first a letter, the last no "
            f"'-'.{' Give another with --name.' if name is None else ''}"
        )
    return found


def image_name(name: str) -> str:
    """Return the name of an image for a model: parts of a-z and 0-9 with one '.', '_' or '-' between them."""
    return re.sub(r"([._-])[._-]*", r"\1", name.lower()).strip("._-") or "model"


def check_secret(name: str) -> None:
    """Raise InputError unless it can be the name of a Secret."""
    if not DNS_SUBDOMAIN.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a Secret of Kubernetes: a-z, 0-9, '-' and '.', no '-' or '.' at an end."
        )

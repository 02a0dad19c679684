"""What the commands of `evovit package` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...storage.files import printable
from .._console import note, out, print_json
from .._limits import ServiceSettings
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

if TYPE_CHECKING:
    from ...packages import ServiceOptions

__all__ = [
    "BATCHING",
    "LIMITS",
    "OUTPUT",
    "RAY",
    "RUN",
    "Cpus",
    "Force",
    "Json",
    "Labels",
    "MaxDelayMs",
    "ModelName",
    "Packaged",
    "Replicas",
    "Served",
    "ServedBatch",
    "ServedOnCpus",
    "Template",
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


@dataclass(frozen=True)
class Served:
    """How the packaged model is to be served."""

    model_name: ModelName = None
    labels: Labels = None
    threads: Threads = None
    max_batch: ServedBatch = ServiceSettings.max_batch
    max_delay_ms: MaxDelayMs = ServiceSettings.max_delay_ms
    max_queue: MaxQueue = ServiceSettings.max_queue
    drain: Drain = ServiceSettings.drain

    def limits(self) -> dict[str, Any]:
        """Return what is not of the model, under the names of the library."""
        names = ("threads", "max_batch", "max_delay_ms", "max_queue", "drain")
        return {name: getattr(self, name) for name in names}

    def options(self, *, gpu: bool = False) -> ServiceOptions:
        """Return them as the library takes them.

        Raises:
            InputError: A value out of its bounds, or a name that is none.
        """
        from ...packages import ServiceOptions

        return ServiceOptions(name=self.model_name, gpu=gpu, **self.limits())


@dataclass(frozen=True)
class ServedOnCpus(Served):
    """The same where the CPUs are counted: there are as many threads, unless they are given."""

    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads per operator. Default: --cpus.", rich_help_panel=RUN),
    ] = None


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

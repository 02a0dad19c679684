"""`evovit package`: a model for other servers; one file a command."""

from __future__ import annotations

import typer

from .._command import Command, Group
from .container import container
from .kubernetes import kubernetes
from .ray import ray
from .triton import triton

__all__ = ["package"]

package = typer.Typer(
    cls=Group, no_args_is_help=True, help="Write what other servers and machines need to run a model."
)


@package.callback()
def options() -> None:
    """Write what other servers and machines need to run a model."""


for command in (container, kubernetes, ray, triton):
    package.command(cls=Command)(command)

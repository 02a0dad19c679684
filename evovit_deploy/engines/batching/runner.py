"""What the batcher needs of an engine; every :class:`~evovit_deploy.Engine` is one."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from ...manifest.spec import ModelSpec

__all__ = ["Runner"]


class Runner(Protocol):
    """Something that runs batches of images."""

    spec: ModelSpec

    def check(self, images: NDArray[Any]) -> None:
        """Raise InputError unless ``images`` is what the model takes."""

    def __call__(self, images: NDArray[Any], /) -> dict[str, Any]:
        """Run images of any number: output name -> array with a row each."""

    def run_checked(self, images: NDArray[Any]) -> dict[str, Any]:
        """Do the same with images that :meth:`check` has seen."""

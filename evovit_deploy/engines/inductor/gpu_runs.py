"""Runs of a package on a GPU, recorded or not. Not run on one: tested with a stand-in for the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..cuda.device import Device

if TYPE_CHECKING:
    import torch

__all__ = ["GpuRuns"]


class GpuRuns:
    """The :class:`~evovit_deploy.engines.cuda.slot.Program` of a package.

    A package allocates its results. They are copied to where they are wanted, which a graph has in it.

    Args:
        device: Where it runs.
        run: Runs a batch on PyTorch's current stream -> results.
        image: Name of the input.
        outputs: Names of the results.
    """

    forgets = True

    def __init__(
        self, device: Device, run: Callable[[torch.Tensor], list[torch.Tensor]], image: str, outputs: Sequence[str]
    ) -> None:
        self._device, self._run, self._image, self._outputs = device, run, image, outputs

    def enqueue(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> None:
        """See :class:`Program`."""
        for name, value in zip(self._outputs, self._run(tensors[self._image])):
            tensors[name].copy_(value, non_blocking=True)

    def record(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> Callable[[], None]:
        """See :class:`Program`."""
        self.enqueue(tensors, stream)  # the first run loads kernels and allocates, which cannot be recorded
        self._device.wait(stream)
        return self._device.record(lambda: self.enqueue(tensors, stream), stream)

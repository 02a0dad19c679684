"""Execution contexts: one that takes any batch, and one for each recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import EngineError
from ..cuda.device import Device

if TYPE_CHECKING:
    import torch

__all__ = ["Contexts"]


class Contexts:
    """The :class:`~evovit_deploy.engines.cuda.slot.Program` of a plan.

    Args:
        device: Where it runs.
        make: Makes an execution context. A graph has one of its own, as it must never see a different shape.
        image: Name of the input.
    """

    forgets = True

    def __init__(self, device: Device, make: Callable[[], Any], image: str) -> None:
        self._device, self._make, self._image = device, make, image
        self._shared: Any = None

    def enqueue(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> None:
        """See :class:`Program`."""
        if self._shared is None:
            self._shared = self._make()
        self._run(self._shared, tensors, stream)

    def record(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> Callable[[], None]:
        """See :class:`Program`."""
        context = self._make()
        self._run(context, tensors, stream)  # the first run after a new shape prepares things that cannot be recorded
        self._device.wait(stream)
        replay = self._device.record(lambda: self._launch(context, stream), stream)

        def run() -> None:
            replay()
            _ = context  # lives as long as its graph

        return run

    def _run(self, context: Any, tensors: Mapping[str, torch.Tensor], stream: Any) -> None:
        image = tensors[self._image]
        if not context.set_input_shape(self._image, tuple(image.shape)):
            raise EngineError(f"the engine refuses a batch of {len(image)}.")
        for name, tensor in tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise EngineError(f"the engine refuses the memory of {name}.")
        self._launch(context, stream)

    def _launch(self, context: Any, stream: Any) -> None:
        if not context.execute_async_v3(self._device.handle(stream)):
            raise EngineError("the engine failed while running; see `evovit doctor` for driver and versions.")

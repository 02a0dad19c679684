"""ONNX Runtime on a GPU: memory that is there already, a stream of PyTorch, and a recorded graph for each batch size.

Written against the documentation of the CUDA provider. Bound memory, the stream and graphs ran on an H100 in a script; this file
itself has not run on a GPU, and was tested with a stand-in for the provider and the GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import EngineError
from ..cuda.slot import SlotTensor
from .session import GraphsRefused

if TYPE_CHECKING:
    import torch

    from ...manifest.spec import ModelSpec
    from ..cuda.device import Device

__all__ = ["Bindings", "open_session"]

log = logging.getLogger("evovit.engines")

# ONNX's name of a type -> PyTorch's, and the number that a binding takes, since numpy has no bfloat16.
_TYPES = {
    "tensor(float)": ("float32", 1),
    "tensor(uint8)": ("uint8", 2),
    "tensor(int8)": ("int8", 3),
    "tensor(int32)": ("int32", 6),
    "tensor(int64)": ("int64", 7),
    "tensor(bool)": ("bool", 9),
    "tensor(float16)": ("float16", 10),
    "tensor(double)": ("float64", 11),
    "tensor(bfloat16)": ("bfloat16", 16),
}
_NUMBERS = dict(_TYPES.values())
_NO_GRAPH = -1  # ONNX Runtime: neither record in this run nor replay


def provider_options(stream: int, graphs: bool) -> dict[str, str]:
    """Return the options of the CUDA provider.

    Args:
        stream: Handle of the CUDA stream that everything runs on.
        graphs: Record graphs. ONNX Runtime refuses to open a model with control flow, or with work that it does on the CPU.
    """
    return {"device_id": "0", "user_compute_stream": str(stream), "enable_cuda_graph": "1" if graphs else "0"}


@dataclass(frozen=True)
class GpuSession:
    """A session on a stream of its own.

    Attributes:
        session: On the CUDA provider.
        stream: Where it runs.
        graphs: Whether it records graphs.
        partly: Whether part of the model may run on the CPU, as that of one which it refused to record does.
    """

    session: Any
    stream: Any
    graphs: bool
    partly: bool = False


def open_session(make: Callable[[dict[str, str]], Any], device: Device, graphs: bool | None, name: str) -> GpuSession:
    """Open a session on a stream of its own.

    Args:
        make: Options of the CUDA provider -> session.
        device: Makes the stream.
        graphs: Record graphs; None is where ONNX Runtime can, with a warning in the log where it cannot.
        name: Of the model, for the log.

    Raises:
        GraphsRefused: Graphs are asked for, and it cannot.
    """
    stream = device.stream()
    wanted = graphs is not False
    try:
        return GpuSession(make(provider_options(device.handle(stream), wanted)), stream, wanted)
    except GraphsRefused as error:
        if graphs:
            raise
        log.warning("%s runs without CUDA graphs, slower at small batches: %s", name, error.__cause__)
    return GpuSession(make(provider_options(device.handle(stream), False)), stream, False, partly=True)


class Bindings:
    """The :class:`~evovit_deploy.engines.cuda.slot.Program` of a session.

    ONNX Runtime keeps a recorded graph as long as the session, and apart for each thread that runs it. So recordings are never
    forgotten, and all runs of a session with graphs are made by one thread, which belongs to it.

    Args:
        opened: The session. One that runs partly on the CPU is waited for in each run, as memory of the host is in it.
        image: Name of the input.
        device: Where the memory is, such as ``cuda:0``.
    """

    forgets = False

    def __init__(self, opened: GpuSession, image: str, device: str) -> None:
        self._session, self._image, self._wait = opened.session, image, opened.partly
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evovit-onnxruntime") if opened.graphs else None
        kind, _, index = device.partition(":")
        self._recorded, self._place = 0, (kind, int(index or 0))

    def tensors(self, spec: ModelSpec) -> tuple[SlotTensor, tuple[SlotTensor, ...]]:
        """Return the input and the outputs; where the file does not say how large an output is, one run does.

        Raises:
            EngineError: An output of a type that cannot be bound to memory.
        """
        import numpy as np
        import torch

        found = {output.name: output for output in self._session.get_outputs()}
        outputs = [found[name] for name in spec.outputs]
        if unknown := next((output for output in outputs if output.type not in _TYPES), None):
            raise EngineError(
                f"the output {unknown.name} of {spec.name} is {unknown.type}, which cannot stay on a GPU. Use --provider cpu."
            )
        shapes = [tuple(output.shape[1:]) for output in outputs]
        if not all(isinstance(size, int) for shape in shapes for size in shape):
            image = np.zeros((spec.batch or 1, *spec.image_shape), spec.input)
            values = self._here(self._session.run, list(spec.outputs), {self._image: image}, self._options(_NO_GRAPH))
            shapes = [value.shape[1:] for value in values]
        types = [getattr(torch, _TYPES[output.type][0]) for output in outputs]
        return (
            SlotTensor(self._image, spec.image_shape, getattr(torch, spec.input)),
            tuple(SlotTensor(*each) for each in zip(spec.outputs, shapes, types)),
        )

    def enqueue(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> None:
        """See :class:`Program`."""
        self._run(self._bound(tensors), self._options(_NO_GRAPH, wait=self._wait))

    def record(self, tensors: Mapping[str, torch.Tensor], stream: Any) -> Callable[[], None]:
        """See :class:`Program`. ONNX Runtime warms up and records within the first run that has a new number."""
        self._recorded += 1
        run = partial(self._run, self._bound(tensors), self._options(self._recorded, wait=False))
        run()
        return run

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown()
        self._session = None

    def _bound(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        binding = self._session.io_binding()
        for name, tensor in tensors.items():
            bind = binding.bind_input if name == self._image else binding.bind_output
            number = _NUMBERS[str(tensor.dtype).removeprefix("torch.")]
            bind(name, *self._place, number, tuple(tensor.shape), tensor.data_ptr())
        return binding

    def _run(self, binding: Any, options: Any) -> None:
        self._here(self._session.run_with_iobinding, binding, options)

    def _here(self, call: Callable[..., Any], *args: Any) -> Any:
        return call(*args) if self._thread is None else self._thread.submit(call, *args).result()

    def _options(self, graph: int, *, wait: bool = True) -> Any:
        import onnxruntime as ort

        options = ort.RunOptions()
        if not wait:
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._thread is not None:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        return options

"""A stand-in for ONNX Runtime's CUDA provider: a session on the CPU that runs on the fake GPU, with the provider's rules."""

from __future__ import annotations

import threading
from typing import Any

import onnxruntime
import pytest
import torch

from evovit_deploy.engines import onnxruntime as backend
from evovit_deploy.engines.ort import session as sessions
from tests.engines.fake_cuda import FakeGpu, Work

__all__ = ["FakeSession", "Provider"]


class Provider:
    """ONNX Runtime with a CUDA provider; remembers what it opened."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.refuses = gpu, ""
        self.opened: list[FakeSession] = []
        self.asked: list[dict[str, str]] = []
        self._real = onnxruntime.InferenceSession

    def install(self, patch: pytest.MonkeyPatch) -> Provider:
        patch.setattr(onnxruntime, "InferenceSession", self.open)
        patch.setattr(onnxruntime, "preload_dlls", lambda: None)
        for module in (sessions, backend):
            patch.setattr(module, "cuda_problem", lambda: None)
        patch.setattr(backend, "CudaDevice", self.gpu.device)
        return self

    def open(self, model: Any, options: Any = None, providers: Any = ()) -> Any:
        ((name, config),) = providers
        if name == "CPUExecutionProvider":
            return self._real(model, options, providers=providers)
        self.asked.append(config)
        if self.refuses and config["enable_cuda_graph"] == "1":
            raise RuntimeError(self.refuses)
        self.opened.append(
            FakeSession(self.gpu, self._real(model, options, providers=["CPUExecutionProvider"]), config)
        )
        return self.opened[-1]


class FakeSession:
    """A session of the CUDA provider, computed by a real one on the CPU.

    Attributes:
        options: Of the provider.
        addresses: Of input and outputs, of each run.
        recorded: Number -> addresses and work, of each graph.
        threads: That ran it.
        waited: Whether the last run waited for its end.
    """

    def __init__(self, gpu: FakeGpu, real: Any, options: dict[str, str]) -> None:
        self._gpu, self._real, self.options = gpu, real, options
        self.addresses: list[dict[str, int]] = []
        self.recorded: dict[int, tuple[dict[str, int], Work]] = {}
        self.threads: set[int] = set()
        self.eager = 0
        self.fail = ""
        self.waited = False
        self.while_recording: Work = lambda: None
        self._busy = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def io_binding(self) -> Any:
        return _Binding()

    def run(self, names: Any, feeds: Any, run_options: Any = None) -> Any:
        assert self._graph_id(run_options) == -1, "it would be recorded with memory that does not stay"
        self._enter()
        return self._real.run(names, feeds)

    def run_with_iobinding(self, binding: Any, run_options: Any = None) -> None:
        assert self._busy.acquire(blocking=False), "two threads in one session"
        try:
            self._enter()
            self._run(binding, run_options)
        finally:
            self._busy.release()

    def _enter(self) -> None:
        self.threads.add(threading.get_ident())
        if self.fail:
            raise RuntimeError(self.fail)
        if self.options["enable_cuda_graph"] == "1":
            assert len(self.threads) == 1, "with graphs, only one thread may run a session"

    def _graph_id(self, run_options: Any) -> int:
        if self.options["enable_cuda_graph"] == "0":
            return -1
        return int(run_options.get_run_config_entry("gpu_graph_id"))

    def _run(self, binding: Any, run_options: Any) -> None:
        stream = self._gpu.streams[int(self.options["user_compute_stream"])]
        addresses = {name: where[2] for name, where in (binding.inputs | binding.outputs).items()}
        self.addresses.append(addresses)
        number = self._graph_id(run_options)
        if number in self.recorded:
            known, work = self.recorded[number]
            assert known == addresses, "a graph reads and writes where it was recorded"
        else:
            work = self._work(binding)
            if number != -1:
                assert number > 0
                self._gpu.recorder = threading.get_ident()
                try:
                    self.while_recording()
                finally:
                    self._gpu.recorder = None
                self.recorded[number] = (addresses, work)
        self.eager += number == -1
        stream.put(work)
        try:
            self.waited = run_options.get_run_config_entry("disable_synchronize_execution_providers") != "1"
        except RuntimeError:  # not set
            self.waited = True
        if self.waited:
            stream.synchronize()

    def _work(self, binding: Any) -> Work:
        ((name, (shape, dtype, address)),) = binding.inputs.items()
        image = self._gpu.at(address, shape, dtype)
        outputs = {key: self._gpu.at(where[2], where[0], where[1]) for key, where in binding.outputs.items()}

        def work() -> None:
            values = self._real.run(list(outputs), {name: image.numpy()})
            for target, value in zip(outputs.values(), values):
                assert target.shape == value.shape
                target.copy_(torch.from_numpy(value))

        return work


NUMBERS = {1: torch.float32, 2: torch.uint8, 7: torch.int64, 10: torch.float16, 11: torch.float64}


class _Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_input(self, name: str, device: str, index: int, number: int, shape: Any, address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.inputs[name] = (shape, NUMBERS[number], address)

    def bind_output(self, name: str, device: str, index: int, number: int, shape: Any, address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.outputs[name] = (shape, NUMBERS[number], address)

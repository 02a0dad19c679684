"""A stand-in for the compiler: a package is a few bytes, and what it runs is the module it was made of."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evovit_deploy.engines.inductor import compiling, engine
from evovit_deploy.engines.inductor.compiling import Compiled
from evovit_deploy.engines.inductor.options import Batches
from tests.engines.fake_cuda import FakeGpu

__all__ = ["Compiler", "OnGpu"]


class Compiler:
    """Compiles and opens; remembers what with.

    Attributes:
        compiled: Batches and device of each package.
        ran: Model name and batch size of each run.
        wrong: Added to the logits of what is compiled from now on.
    """

    def __init__(self) -> None:
        self.modules: list[tuple[Any, tuple[str, ...], float]] = []
        self.compiled: list[tuple[Batches, str]] = []
        self.ran: list[tuple[str, int]] = []
        self.wrong = 0.0

    def install(self, patch: pytest.MonkeyPatch) -> Compiler:
        patch.setattr(compiling, "check_compiler", lambda: None)
        patch.setattr(compiling, "compile_package", self.compile)
        patch.setattr(engine, "_load", self.load)
        return self

    def compile(self, module: Any, names: Sequence[str], path: Path, batches: Batches, device: str) -> Compiled:
        path.write_bytes(b"package %d" % len(self.modules))
        self.modules.append((module, tuple(names), self.wrong))
        self.compiled.append((batches, device))
        return Compiled(attention=2, seconds=0.5)

    def load(self, path: Path, name: str, device: str, alone: bool = False) -> Any:
        module, names, wrong = self.modules[int(path.read_bytes().split()[1])]
        compiler = self

        class Model:
            def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
                compiler.ran.append((name, len(inputs[0])))
                found = dict(zip(module.output_names, module(*inputs)))
                return [found[key] + (wrong if key == "logits" else 0) for key in names]

        return Model()


class OnGpu:
    """A model of a package on the fake GPU: a run allocates its results, and they come late.

    Args:
        gpu: Where.
        model: Computes on the CPU.
        alone: As it was loaded.
    """

    def __init__(self, gpu: FakeGpu, model: Any, alone: bool) -> None:
        self.gpu, self._model, self._alone = gpu, model, alone
        self._busy = threading.Lock()
        self._ran: set[tuple[int, int]] = set()

    def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if self.gpu.current.recording is not None and not self._alone:
            raise RuntimeError("its events cannot be recorded")
        ran = (self.gpu.current.cuda_stream, len(inputs[0]))
        if self.gpu.current.recording is not None and ran not in self._ran:
            raise RuntimeError("the first run on a stream loads and allocates, which cannot be recorded")
        self._ran.add(ran)
        if self._alone:
            assert self._busy.acquire(blocking=False), "two threads in a package that does not see to that"
        try:
            image = self.gpu.later(inputs[0])
            results = [
                self.gpu.empty(tuple(v.shape), dtype=v.dtype) for v in self._model.run([torch.zeros_like(image)])
            ]
            targets = [self.gpu.later(result) for result in results]

            def work() -> None:
                for target, value in zip(targets, self._model.run([image.clone()])):
                    target.copy_(value)

            self.gpu.current.put(work)
            return results
        finally:
            if self._alone:
                self._busy.release()

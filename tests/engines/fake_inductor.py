"""A stand-in for the compiler: a package is a few bytes, and what it runs is the module it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evovit_deploy.engines.inductor import compiling, engine
from evovit_deploy.engines.inductor.compiling import Compiled
from evovit_deploy.engines.inductor.options import Batches

__all__ = ["Compiler"]


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

    def load(self, path: Path, name: str, device: str) -> Any:
        module, names, wrong = self.modules[int(path.read_bytes().split()[1])]
        compiler = self

        class Model:
            def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
                compiler.ran.append((name, len(inputs[0])))
                found = dict(zip(module.output_names, module(*inputs)))
                return [found[key] + (wrong if key == "logits" else 0) for key in names]

        return Model()

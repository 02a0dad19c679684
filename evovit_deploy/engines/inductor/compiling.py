"""A module becomes a package: torch.export to a graph of PyTorch's own operators, and AOTInductor to native code.

Run for CPUs only. For a GPU the same calls compile Triton kernels; that has not been run.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import manifest as manifests
from ...errors import EngineError, ExportError, translate
from ...machine.quiet import quiet
from ...storage.files import sha256, write_json
from .engine import model_name
from .options import Batches
from .package import SCHEMA, machine, manifest_path

if TYPE_CHECKING:
    import torch

    from ..pytorch import TorchEngine

__all__ = ["Compiled", "attentions", "check_compiler", "compile_package", "document", "export_program", "make"]

# The number of threads is that of the machine it runs on, not that of the process that compiled it. Headers compiled beforehand
# (290 MB, which PyTorch keeps in the temporary folder for good) make a second build a seventh faster, the first a quarter slower.
_CONFIG = {"cpp.dynamic_threads": True, "aot_inductor.precompile_headers": False}
_LOGGERS = ("torch._dynamo", "torch._export", "torch._inductor", "torch.export", "torch.utils.cpp_extension")


@dataclass(frozen=True)
class Compiled:
    """What was compiled: places with a fused attention in the graph, and the seconds it took."""

    attention: int
    seconds: float


def check_compiler() -> None:
    """Raise EngineError now if there is no C++ compiler, which AOTInductor runs, for a GPU too."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise EngineError(
            f"an inductor engine is compiled by a C++ compiler, and {name} was not found. Install one (g++ of your system, such "
            "as `apt install g++`), or name yours in the environment: CXX=clang++. Only building needs it, running does not."
        )


def export_program(module: Any, names: Sequence[str], low: int, high: int, device: str = "cpu") -> Any:
    """Return the ``torch.export.ExportedProgram`` of a module for batches of ``low`` to ``high`` images.

    Args:
        module: Eval mode, on ``device``, with ``output_names``, ``structure`` and ``image_input``.
        names: Outputs of it to keep, in order; what only others need is left out.
        low, high: Smallest and largest batch; equal ones make it static.
        device: ``cpu`` or ``cuda``.

    Raises:
        ExportError: torch.export refuses it, or an operator in its graph is not PyTorch's own.
    """
    import torch

    from ...models.ops import NATIVE, lowered

    size = module.structure.image_size
    shape, dtype = ((size, size, 3), torch.uint8) if module.image_input == "uint8" else ((3, size, size), torch.float32)
    # torch.export takes 1 for a constant, so that a range is traced with 2.
    example = torch.zeros(high if low == high else max(2, low), *shape, dtype=dtype, device=device)
    dynamic: Any = None if low == high else ({0: torch.export.Dim("batch", min=low, max=high)},)
    chosen = _chosen(module, [module.output_names.index(name) for name in names])
    with (
        quiet(*_LOGGERS),
        torch.no_grad(),
        lowered(module, NATIVE),
        translate(ExportError, "torch.export refused the model"),
    ):
        program = torch.export.export(chosen, (example,), dynamic_shapes=dynamic, strict=False)
    foreign = {str(node.target) for node in _calls(program) if _namespace(node) not in ("aten", "prim", "")}
    if foreign:
        raise ExportError(
            f"the graph has operators that no other process knows, and a package with them would not open: "
            f"{', '.join(sorted(foreign))}."
        )
    return program


def attentions(program: Any) -> int:
    """Return how many attentions the graph has as one operator, which a compiler gives a fused kernel."""
    return sum("scaled_dot_product_attention" in str(node.target) for node in _calls(program))


def _calls(program: Any) -> list[Any]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def _namespace(node: Any) -> str:
    """``aten`` of an operator; empty for a function of Python, such as arithmetic on sizes."""
    return str(getattr(node.target, "namespace", ""))


def _chosen(module: Any, places: Sequence[int]) -> torch.nn.Module:
    import torch

    class Chosen(torch.nn.Module):
        """A module with some of its outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = self.inner(images)
            return tuple(values[place] for place in places)

    return Chosen().eval()


def compile_package(module: Any, names: Sequence[str], path: Path, batches: Batches, device: str) -> Compiled:
    """Compile a module into the package ``path``, which ends in ``.pt2``.

    Args:
        module, names, device: As for :func:`export_program`; the module is moved to the device.
        path: File to write.
        batches: Sizes it takes.

    Raises:
        ExportError: See :func:`export_program`.
        EngineError: No C++ compiler, or AOTInductor failed.
    """
    import torch

    check_compiler()
    start = time.perf_counter()
    module = module.to(device)
    ranges = [(size, size) for size in batches.sizes] or [(batches.min, batches.max)]
    programs = [export_program(module, names, low, high, device) for low, high in ranges]
    with (
        quiet(*_LOGGERS),
        translate(EngineError, "AOTInductor could not compile the model"),
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
    ):
        from torch._inductor import aot_compile, config
        from torch._inductor.package import package_aoti  # type: ignore[attr-defined,unused-ignore]

        sizes: tuple[int | None, ...] = batches.sizes if len(programs) > 1 else (None,)
        files: Any = {}
        for name, program in zip(map(model_name, sizes), programs):
            output = Path(folder, name)  # if not named, PyTorch's cache, where the weights of every model would stay
            output.mkdir()
            options: dict[str, Any] = {key: value for key, value in _CONFIG.items() if key in config.get_config_copy()}
            options |= {"aot_inductor.package": True, "aot_inductor.output_path": str(output)}
            files[name] = aot_compile(program.module(), *program.example_inputs, options=options)
        package_aoti(str(path), files)
    if device == "cuda":
        torch.cuda.empty_cache()
    return Compiled(attentions(programs[0]), time.perf_counter() - start)


def document(path: Path, model: dict[str, Any], batches: Batches, device: str, compiled: Compiled) -> dict[str, Any]:
    """Return the manifest of a package that was just written.

    Args:
        path: The package.
        model: Manifest of the model (:func:`evovit_deploy.manifest.make`, without an opset).
        batches, device: As it was compiled for.
        compiled: From :func:`compile_package`.
    """
    from importlib.metadata import version

    import torch

    return {
        "schema": SCHEMA,
        "kind": "inductor",
        "name": model["name"],
        "torch": str(torch.__version__),
        "package": {"sha256": sha256(path), "bytes": path.stat().st_size},
        "machine": machine(device),
        "precision": model["precision"],
        "batch": {"min": batches.min, "max": batches.max, "sizes": list(batches.sizes)},
        "transform": model["recipe"].get("transform"),
        "model": model,
        "graph": {"attention": compiled.attention},
        "build_seconds": round(compiled.seconds, 3),
        "versions": {"evovit-deploy": version("evovit-deploy")},
        "status": "compiled, not compared",
        "parity": None,
    }


def make(engine: TorchEngine, path: Path, batches: tuple[int, ...]) -> None:
    """Write a package of an open module and its manifest, for `evovit bench`: one size is static, several are a range."""
    from ...models.options import ModelOptions

    spec, module = engine.spec, engine.module
    sizes = Batches.static(*batches) if len(set(batches)) == 1 else Batches.range(1, max(batches))
    device = engine.device.partition(":")[0]
    compiled = compile_package(module, spec.outputs, path, sizes, device)
    options = engine.options or ModelOptions(spec.precision, spec.input)  # type: ignore[arg-type]
    model = manifests.make(
        engine.recipe,
        options,
        batch=None,
        opset=None,
        outputs=spec.outputs,
        weights=engine.weights or {"source": "random weights", "random": True, "sha256": None},
    )
    write_json(manifest_path(path), document(path, model, sizes, device, compiled))

"""A checkpoint becomes an inductor engine that was run and compared on the spot, or no file at all. ONNX has no part in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.inductor import compiling, package
from ..engines.inductor.options import Batches, pick_device
from ..errors import InputError, ParityError
from ..storage.files import printable, staged, write_json
from ..storage.ownership import Ours, check_replaceable, is_manifest

if TYPE_CHECKING:
    from ..export.gates import ParityReport
    from ..export.onnx import ExportOptions, PreparedExport

__all__ = ["STEPS", "TARGET", "InductorResult", "Wanted", "build_inductor", "places", "wanted"]

TARGET = "inductor"
STEPS = ("building the model", "compiling ahead of time", "proving parity")
_OF_TENSORRT = ("profile", "opt_batch", "require_fused_attention", "max_kernels")


@dataclass(frozen=True)
class Wanted:
    """What a package is compiled for."""

    batches: Batches
    device: str


@dataclass(frozen=True)
class InductorResult:
    """What was built.

    Attributes:
        path: The package.
        manifest_path, manifest: The JSON beside it.
        parity: How it compares with the FP32 PyTorch model; None when it was not run.
    """

    path: Path
    manifest_path: Path
    manifest: dict[str, Any]
    parity: ParityReport | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form: the manifest as written, and where the package is."""
        return {"path": str(self.path), **self.manifest}


def wanted(options: ExportOptions, build: Mapping[str, Any], device: str | None, sizes: tuple[int, ...]) -> Wanted:
    """Settle for what a package is compiled, before anything takes time.

    Args:
        options: Of the export.
        build: What else was asked of an engine; None counts as not given.
        device: ``cpu``, ``cuda`` or ``auto``; None is ``auto``.
        sizes: Static batch sizes; none for a range.

    Raises:
        InputError: Options that only TensorRT or an ONNX file has, or batch sizes that contradict each other.
        EngineError: No such device here, or no C++ compiler.
    """
    foreign = [name for name in _OF_TENSORRT if build.get(name) is not None]
    if options.opset is not None:
        foreign.append("opset")
    if options.attention != "plain":
        foreign.append("attention")
    if foreign:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise InputError(f"{listed}: --target {TARGET} goes neither through ONNX nor through TensorRT. Leave it out.")
    low, high = build.get("min_batch"), build.get("max_batch")
    if sizes and (low, high) != (None, None):
        raise InputError("give either static batch sizes, or the minimum and maximum of a dynamic one.")
    batches = Batches.static(*sizes) if sizes else Batches.range(low, high)
    if batches.min == batches.max:
        batches = Batches.static(batches.min)
    found = Wanted(batches, pick_device(device or "auto"))
    compiling.check_compiler()
    return found


def places(path: Path) -> dict[Path, Ours]:
    """Return a package and its manifest, and how those of evovit are known.

    Raises:
        InputError: A name that is none for a package.
    """
    if path.suffix.lower() != ".pt2":
        named = path.with_suffix(".pt2") if path.suffix else path.with_name(f"{path.name}.pt2")
        raise InputError(
            f"{printable(path)} is not a name for an inductor engine, which ends in .pt2: name it {printable(named)}."
        )
    return {path: package.is_ours, package.manifest_path(path): is_manifest(TARGET)}


def build_inductor(
    prepare: Callable[[ExportOptions], PreparedExport],
    path: str | Path,
    options: ExportOptions,
    wanted: Wanted,
    *,
    force: bool = False,
    step: Callable[[str], None] = lambda text: None,
) -> InductorResult:
    """Compile a model into a package, run it on this machine and compare it with the FP32 PyTorch module.

    Args:
        prepare: Builds the modules: :func:`evovit_deploy.export.onnx.prepare` for a checkpoint.
        path: Package to write, ``X.pt2``; its manifest lands beside it, ``X.pt2.json``.
        options: Precision, input, outputs, selection, folding; whether to compare.
        wanted: From :func:`wanted`.
        force: Replace files that evovit did not write; its own are replaced always.
        step: Called with a few words at the start of each of :data:`STEPS`.

    Raises:
        InputError: A name that is none for a package.
        ExportError: torch.export refuses the model.
        EngineError: AOTInductor cannot compile it, or PyTorch cannot open what it compiled.
        ParityError: The outputs differ by more than the recipe's tolerance; nothing was written.
        OutputError: It could not be written, or would replace a file that evovit did not write.
    """
    if options.islands:
        raise InputError("islands are nodes of an ONNX graph, and an inductor engine has none. Leave --islands out.")
    path = Path(path)
    files = places(path)
    check_replaceable(files, force=force)
    step(STEPS[0])
    static = wanted.batches.max if len(wanted.batches.sizes) == 1 else None
    prepared = prepare(dataclasses.replace(options, batch=static))
    model = prepared.manifest(None)
    with staged(*files) as folder:
        temporary = folder / path.name
        step(STEPS[1])
        compiled = compiling.compile_package(prepared.module, prepared.names, temporary, wanted.batches, wanted.device)
        document = compiling.document(temporary, model, wanted.batches, wanted.device, compiled)
        write_json(package.manifest_path(temporary), document)
        parity: ParityReport | None = None
        if options.prove:
            step(STEPS[2])
            parity = _prove(prepared, temporary)
            document.update(status="compiled and compared", parity=parity.to_dict())
            write_json(package.manifest_path(temporary), document)
    return InductorResult(path, package.manifest_path(path), document, parity)


def _prove(prepared: PreparedExport, path: Path) -> ParityReport:
    """Run the package and the reference on the same images.

    Raises:
        ParityError: They differ by more than the recipe's tolerance.
    """
    from ..engines.inductor.engine import InductorEngine
    from ..engines.pytorch import TorchEngine
    from ..export.proof import verify

    reference = TorchEngine(prepared.reference, prepared.recipe, provider="cpu")
    with InductorEngine(path) as engine:
        report = verify(reference, engine)
    if not report.passed:
        precision = prepared.options.model.precision
        raise ParityError(
            f"the compiled model is not the checkpoint's: {report.failure}. Nothing was written. Try another --precision or "
            f"--selection, or set [tolerances.{precision}] in your own recipe."
        )
    return report

"""`build_engine`: an ONNX file becomes a TensorRT engine that was looked into, and run where it can be, or no file at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import manifest as onnx_manifest
from ..engines.registry import backend_of, backends
from ..engines.trt import engine_manifest
from ..engines.trt.api import Api, Gpu, PlanLogger, find_gpu, load_api, pick_flavour, plan_logger
from ..engines.trt.options import BuildOptions
from ..errors import EngineError, InputError, ParityError
from ..storage.files import atomic, printable, staged, write_json
from ..storage.ownership import Ours, check_not_read, check_replaceable, is_manifest
from .builder import build_plan
from .described import notes_of, plan_manifest, why_not_run
from .monitor import Progress
from .onnx_facts import OnnxFacts, read_onnx
from .plan import PlanReport, check_plan, make_report, parse_inspector, parse_log

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..export.gates import ParityReport
    from ..export.onnx import ExportResult

__all__ = ["BuildResult", "build_engine", "check_target", "default_engine_path", "export_engine"]

NOT_RUN = "built, not run here"


@dataclass(frozen=True)
class BuildResult:
    """What was built.

    Attributes:
        path: The plan, a plain file.
        manifest_path, manifest: The JSON beside it.
        report: What is in the plan.
        parity: How it compares with the reference; None when it was not run.
        seconds: Of the build itself.
        notes: What a reader should know, such as why the engine was not run.
    """

    path: Path
    manifest_path: Path
    manifest: dict[str, Any]
    report: PlanReport
    parity: ParityReport | None
    seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form: the manifest as written, where the plan is, and the notes."""
        return {"path": str(self.path), **self.manifest, "notes": list(self.notes)}


def default_engine_path(onnx: Path) -> Path:
    """Turn ``model.onnx`` into ``model.engine``."""
    return onnx.with_suffix(".engine")


def build_engine(
    onnx: str | Path,
    engine: str | Path | None = None,
    options: BuildOptions | None = None,
    *,
    progress: Progress | None = None,
    prove: bool = True,
    reference: Engine | None = None,
    force: bool = False,
) -> BuildResult:
    """Build a TensorRT engine from an ONNX file, look into the plan, and compare its outputs where it can run.

    The network is strongly typed, so the precision is that of the ONNX file. Nothing is written unless the plan is what
    was asked for. Ctrl-C, or an exception from ``progress``, cancels the build at its next step.

    Args:
        onnx: ONNX file with one image input; only its batch may be dynamic.
        engine: Plan to write; ``X.engine`` beside ``X.onnx`` if None. Its manifest lands beside it, ``X.engine.json``.
        options: See :class:`BuildOptions`.
        progress: Called with the phase and the fraction done, 0 to 1, from another thread.
        prove: Compare the engine with the reference if it can run here.
        reference: Open engine to compare with; the ONNX file on ONNX Runtime's CPU provider if None.
        force: Replace files that evovit did not write; its own are replaced always.

    Raises:
        InputError: Options that do not go together, or that this flavour does not have.
        ModelFileError: The ONNX file cannot be read or parsed.
        EngineError: No TensorRT, no GPU where one is needed, or a build that failed.
        PlanError: The plan is not what was asked for.
        ParityError: The engine computes something else.
        OutputError: It could not be written, or would replace a file that evovit did not write.
    """
    onnx, options = Path(onnx), options or BuildOptions()
    path = Path(engine) if engine is not None else default_engine_path(onnx)
    _check_name(path)
    check_not_read(_places(path), [onnx])
    check_replaceable(_places(path), force=force)
    facts = read_onnx(onnx)
    if options.precision not in (None, facts.precision):
        raise InputError(
            f"{onnx} is {facts.precision}, and {options.precision} was asked for. TensorRT takes the precision from the ONNX "
            f"file; export again with --precision {options.precision}."
        )
    profile = options.profile(facts.batch)
    api, gpu = check_target(options)
    plan, logged, seconds = build_plan(api, gpu, facts, profile, options, progress)
    report = _report(api, gpu, plan, logged, facts)
    check_plan(report, facts, require_fused_attention=options.require_fused_attention, max_kernels=options.max_kernels)
    notes = notes_of(api, gpu, options)
    if facts.precision == "fp32" and report.fused < report.attentions:
        notes.append("FP32 attention is never fused; export with --precision fp16 for a fast engine")
    with atomic(path) as temporary:
        temporary.write_bytes(plan)
        document = plan_manifest(api, gpu, plan, facts, profile, options, report, seconds)
        parity: ParityReport | None = None
        if prove and not (why := why_not_run(api, gpu, options)):
            parity = _prove(temporary, document, facts, reference)
            document["parity"], document["status"] = parity.to_dict(), "built and compared"
        else:
            document["status"] = NOT_RUN
            notes.append(f"{NOT_RUN}: {why if prove else 'not asked to'}")
        write_json(engine_manifest.manifest_path(path), document)
    return BuildResult(path, engine_manifest.manifest_path(path), document, report, parity, seconds, tuple(notes))


def export_engine(
    engine: str | Path,
    export: Callable[[Path], ExportResult],
    build: Callable[[Path, Path], BuildResult],
    *,
    force: bool = False,
) -> tuple[ExportResult, BuildResult]:
    """Export and build as one: the ONNX file, the engine and what describes them appear together, or not at all.

    Args:
        engine: Plan to write, ``X.engine``; the ONNX file becomes ``X.onnx`` beside it.
        export: Writes an ONNX file to a path, e.g. ``lambda path: export_onnx(checkpoint, path)``.
        build: Builds a plan from an ONNX file, e.g. ``build_engine``.
        force: Replace files that evovit did not write; its own are replaced always.

    Raises:
        InputError: A name that is none for an engine.
        OutputError: A file that evovit did not write would be replaced.
        EvoVitError: What ``export`` and ``build`` raise. What was there before is untouched.
    """
    path = Path(engine)
    _check_name(path)
    onnx = path.with_suffix(".onnx")
    described, manifest = onnx.with_suffix(".json"), engine_manifest.manifest_path(path)
    places = {**_places(path), onnx: onnx_manifest.is_ours, described: is_manifest("onnx")}
    check_replaceable(places, force=force)
    with staged(*places) as folder:
        exported = export(folder / onnx.name)
        built = build(exported.path, folder / path.name)
    return (
        dataclasses.replace(exported, path=onnx, json_path=described),
        dataclasses.replace(built, path=path, manifest_path=manifest),
    )


def _places(path: Path) -> dict[Path, Ours]:
    """A plan and its manifest, and how those of evovit are known."""
    return {path: engine_manifest.is_ours, engine_manifest.manifest_path(path): is_manifest("engine")}


def _check_name(path: Path) -> None:
    """Refuse names under which no command would open the engine, or its files would get in each other's way."""
    row = backend_of(path)
    if row is None or not row.built:
        named = path.with_suffix(".engine") if path.suffix else path.with_name(f"{path.name}.engine")
        suffixes = dict.fromkeys(suffix for row in backends() if row.built for suffix in row.suffixes)
        *most, last = suffixes
        raise InputError(
            f"{printable(path)} is not a name for an engine, which ends in {', '.join(most)} or {last}: "
            f"name it {printable(named)}."
        )


def check_target(options: BuildOptions) -> tuple[Api, Gpu | None]:
    """Return the TensorRT that builds with these options on this machine, and the GPU it has.

    Raises:
        InputError: Options that this flavour does not have.
        EngineError: It is not installed, or there is no GPU where one is needed.
    """
    gpu = find_gpu()
    api = load_api(pick_flavour(options.target, gpu))
    _check_flavour(api, options, gpu)
    return api, gpu


def _check_flavour(api: Api, options: BuildOptions, gpu: Gpu | None) -> None:
    """Refuse options that the flavour does not have, rather than ignore them."""
    defaults = BuildOptions()
    if api.rtx:
        for name in ("hardware_compatibility", "version_compatible", "tiling"):
            if getattr(options, name) != getattr(defaults, name):
                raise InputError(
                    f"{api.title} has no option {name}; it builds for compute capabilities: "
                    f"{', '.join(api.compute_capabilities())}."
                )
        for capability in options.compute_capabilities:
            if capability not in api.compute_capabilities():
                raise InputError(
                    f"{api.title} cannot build for compute capability {capability}; valid: "
                    f"{', '.join(api.compute_capabilities())}."
                )
        if gpu is not None and not options.compute_capabilities and gpu.capability not in api.compute_capabilities():
            raise EngineError(
                f"{api.title} does not run on {gpu.name} (compute capability {gpu.capability}), but on: "
                f"{', '.join(api.compute_capabilities())}. Here use --target tensorrt, or `evovit export CKPT --format engine "
                f"--target inductor`; for another GPU, name its compute capability: --compute-capability 8.9."
            )
        if (options.refit or options.strip_plan) and gpu is None:
            raise EngineError(f"{api.title} needs a GPU to build with refit or strip_plan, and none was found.")
        return
    if options.compute_capabilities:
        raise InputError(
            "compute capabilities are an option of TensorRT-RTX; full TensorRT builds for the GPU it runs on."
        )
    if gpu is None:
        raise EngineError(
            f"{api.title} needs an NVIDIA GPU to build, and none was found. Build on the GPU machine, or use --target "
            f"tensorrt-rtx, which needs none."
        )


def _report(api: Api, gpu: Gpu | None, plan: bytes, logged: PlanLogger, facts: OnnxFacts) -> PlanReport:
    """From the engine itself where it can be loaded; TensorRT-RTX, or a machine without a GPU, has the builder's log."""
    kernels, activation = parse_log(logged.plan), logged.memory.get("activation")
    if not api.rtx and gpu is not None:
        trt, logger = api.trt, plan_logger(api)
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{api.title} cannot load what it just built: {logger.kept.problem()}.")
        inspector = engine.create_engine_inspector()
        kernels = parse_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        activation = int(engine.device_memory_size_v2)
        del inspector, engine, runtime
    if not kernels:
        raise EngineError(f"{api.title} did not say what is in the plan, so it cannot be checked. Nothing was written.")
    return make_report(kernels, facts, weights_bytes=logged.memory.get("weights"), activation_bytes=activation)


def _prove(path: Path, document: dict[str, Any], facts: OnnxFacts, reference: Engine | None) -> ParityReport:
    """Run the plan and the reference on the same images.

    Raises:
        ParityError: They differ by more than the tolerance of the model's recipe.
    """
    from ..engines.base import Engine
    from ..engines.trt.tensorrt import TrtEngine
    from ..export.proof import verify

    opened = reference or Engine.open(facts.path, backend="onnxruntime", provider="cpu", emulate=True)
    try:
        with TrtEngine(path, document=document) as engine:
            report = verify(opened, engine)
    finally:
        if reference is None:
            opened.close()
    if not report.passed:
        raise ParityError(
            f"the engine is not the same function as {opened.spec.name} on {opened.backend}: {report.failure}. Nothing was "
            f"written. Try another TensorRT version or --precision."
        )
    return report

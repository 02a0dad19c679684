"""`evovit export` as a call: what is exported, how, under which name, and which engine is built of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.registry import opener
from ..errors import InputError
from ..export.onnx import STEPS, ExportOptions, ExportResult, default_name
from ..export.source import ExportSource
from ..storage.ownership import check_not_read
from . import inductor
from .build import BuildResult, build_engine, check_target, export_engine
from .inductor import InductorResult
from .profiles import BuildProfile, load_profile

if TYPE_CHECKING:
    from ..engines.trt.options import BuildOptions

__all__ = ["ExportJob", "Exported", "export"]

Tell = Callable[[str, float, "float | None"], None]  # what is being done, how much of it is done, and of how much


@dataclass(frozen=True)
class ExportJob:
    """A model to export, and perhaps to build.

    Attributes:
        source: What is exported.
        options: How; its precision gives way to ``precision``, or what follows from None.
        precision: ``fp32``, ``fp16`` or ``bf16``; None is FP32 for an ONNX file or a CPU, and FP16, or what the profile says,
            for an engine on a GPU.
        output: ``X.onnx``, ``X.engine`` or ``X.pt2``; None is named after the model, its size and its precision.
        engine: Build a TensorRT engine too, or an inductor engine only, as the ``target`` in ``build`` says.
        profile: Build profile, a name or a TOML file.
        build: Fields of :class:`BuildOptions` that overrule the profile's; None counts as not given.
        device: Of an inductor engine: ``cpu`` or ``cuda``; None is a GPU where there is one.
        sizes: Static batch sizes of an inductor engine, in place of the one in ``options``.
        force: Replace files that evovit did not write; its own are replaced always.
    """

    source: ExportSource
    options: ExportOptions = field(default_factory=ExportOptions)
    precision: str | None = None
    output: Path | None = None
    engine: bool = False
    profile: str | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    sizes: tuple[int, ...] = ()
    force: bool = False

    def __post_init__(self) -> None:
        if self.engine and not self.through_onnx:
            return
        if len(self.sizes) > 1:
            raise InputError(
                f"--batch {','.join(map(str, self.sizes))}: only an inductor engine has several static sizes; give one, or add "
                f"--format engine --target {inductor.TARGET}."
            )
        if self.engine:
            if self.device is not None:
                raise InputError(
                    f"--device {self.device}: only --target {inductor.TARGET} has that; TensorRT runs on a GPU. Leave it out."
                )
            return
        given = {"profile": self.profile, **self.build, "device": self.device}
        unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if unused:
            raise InputError(f"{', '.join(unused)}: only an engine has that; add --format engine.")
        if self.output is not None and (row := opener(self.output)).kind != "onnx":
            target = "" if row.built else f" --target {row.name}"
            fix = f"add --format engine{target}, or name it" if row.kind == "engine" else "name it"
            raise InputError(
                f"-o {self.output} is not a name for an ONNX file: {fix} {self.output.with_suffix('.onnx')}."
            )

    @property
    def through_onnx(self) -> bool:
        """Whether an ONNX file is written."""
        return self.build.get("target") != inductor.TARGET

    def building(self) -> BuildOptions | None:
        """Return what to build with; None without an engine.

        Raises:
            InputError: Options that do not go together, or that the flavour does not have.
            EngineError: No TensorRT that could build it.
        """
        if not self.engine:
            return None
        base = load_profile(self.profile) if self.profile is not None else BuildProfile("", "", "")
        precision = self.precision or base.options.precision or "fp16"
        found = base.with_options(**{**self.build, "batch": self.options.batch, "precision": precision})
        check_target(found)
        return found


@dataclass(frozen=True)
class Exported:
    """What was written: the ONNX file, which an inductor engine has none of, and the engine if one was built."""

    onnx: ExportResult | None
    engine: BuildResult | InductorResult | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form: the manifest of the ONNX file, or that of the engine with it as ``export``."""
        engine = {} if self.engine is None else self.engine.to_dict()
        if self.onnx is None:
            return engine
        exported = {"path": str(self.onnx.path), "json": str(self.onnx.json_path), **self.onnx.manifest}
        return {**engine, "export": exported} if engine else exported


def export(
    job: ExportJob, *, note: Callable[[str], None] = lambda text: None, tell: Tell = lambda text, done, total: None
) -> Exported:
    """Export a model and prove it, and build an engine of it if asked; all files appear, or none.

    Args:
        job: What is wanted.
        note: Called with what was assumed about the checkpoint.
        tell: Called as it goes on; while an engine is built, from another thread.

    Raises:
        EvoVitError: What :func:`.export_onnx`, :func:`.export_baseline`, :func:`.build_engine` and :func:`.build_inductor`
            raise; mistakes in the job show before anything takes time. Nothing was written.
    """
    if job.engine and not job.through_onnx:
        return _inductor(job, note, tell)
    building = job.building()
    precision = job.precision or ("fp32" if building is None else building.precision or "fp16")
    model = dataclasses.replace(job.options.model, precision=precision)  # type: ignore[arg-type]
    options = dataclasses.replace(job.options, model=model)
    tell("reading", 0, None)
    loaded = job.source.load()
    for text in loaded.notes:
        note(text)
    if building is not None and options.attention == "operator":
        note("attention operator: TensorRT needs more kernels for it than for plain (docs/graph.md).")
    path = job.output or Path(default_name(loaded.recipe, options))
    if building is not None and job.output is None:
        path = path.with_suffix(".engine")
    onnx = path if building is None else path.with_suffix(".onnx")
    check_not_read((path, onnx, onnx.with_suffix(".json")), job.source.files)

    def write(to: Path, **more: Any) -> ExportResult:
        steps = iter(range(len(STEPS)))
        return loaded.export(to, options, step=lambda text: tell(text, next(steps, len(STEPS)), len(STEPS)), **more)

    if building is None:
        return Exported(write(path, force=job.force), None)
    build = partial(
        build_engine,
        options=building,
        progress=lambda phase, share: tell(phase.lower(), share, 1),
        prove=options.prove,
    )
    return Exported(*export_engine(path, write, build, force=job.force))


def _inductor(job: ExportJob, note: Callable[[str], None], tell: Tell) -> Exported:
    """Build an inductor engine, which takes no ONNX file."""
    sizes = job.sizes or (() if job.options.batch is None else (job.options.batch,))
    wanted = inductor.wanted(job.options, {**job.build, "profile": job.profile}, job.device, sizes)
    precision = job.precision or ("fp16" if wanted.device == "cuda" else "fp32")
    static = sizes[0] if len(sizes) == 1 else None
    model = dataclasses.replace(job.options.model, precision=precision)  # type: ignore[arg-type]
    options = dataclasses.replace(job.options, model=model, batch=static)
    if job.output is not None:
        inductor.places(job.output)
    tell("reading", 0, None)
    loaded = job.source.load()
    for text in loaded.notes:
        note(text)
    path = job.output or Path(default_name(loaded.recipe, options)).with_suffix(".pt2")
    check_not_read(inductor.places(path), job.source.files)
    steps = iter(range(len(inductor.STEPS)))
    built = inductor.build_inductor(
        loaded.prepare,
        path,
        options,
        wanted,
        force=job.force,
        step=lambda text: tell(text, next(steps), len(inductor.STEPS)),
    )
    return Exported(None, built)

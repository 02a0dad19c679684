"""`evovit export` as a call: what is exported, how, under which name, and whether an engine is built of it."""

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
from .build import BuildResult, build_engine, check_target, export_engine
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
        precision: ``fp32``, ``fp16`` or ``bf16``; None is FP32 for an ONNX file, and FP16, or what the profile says, for an
            engine.
        output: ``X.onnx``, or ``X.engine``; None is named after the model, its size and its precision.
        engine: Build a TensorRT engine too.
        profile: Build profile, a name or a TOML file.
        build: Fields of :class:`BuildOptions` that overrule the profile's; None counts as not given.
        force: Replace files that evovit did not write; its own are replaced always.
    """

    source: ExportSource
    options: ExportOptions = field(default_factory=ExportOptions)
    precision: str | None = None
    output: Path | None = None
    engine: bool = False
    profile: str | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False

    def __post_init__(self) -> None:
        if self.engine:
            return
        given = {"profile": self.profile, **self.build}
        unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if unused:
            raise InputError(f"{', '.join(unused)}: only an engine has that; add --format engine.")
        if self.output is not None and (row := opener(self.output)).kind != "onnx":
            fix = "add --format engine, or name it" if row.built else "name it"
            raise InputError(
                f"-o {self.output} is not a name for an ONNX file: {fix} {self.output.with_suffix('.onnx')}."
            )

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
    """What was written: the ONNX file, and the engine if one was built."""

    onnx: ExportResult
    engine: BuildResult | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form: the manifest of the ONNX file, or that of the engine with it as ``export``."""
        exported = {"path": str(self.onnx.path), "json": str(self.onnx.json_path), **self.onnx.manifest}
        return exported if self.engine is None else {**self.engine.to_dict(), "export": exported}


def export(
    job: ExportJob, *, note: Callable[[str], None] = lambda text: None, tell: Tell = lambda text, done, total: None
) -> Exported:
    """Export a model and prove it, and build an engine of it if asked; all files appear, or none.

    Args:
        job: What is wanted.
        note: Called with what was assumed about the checkpoint.
        tell: Called as it goes on; while an engine is built, from another thread.

    Raises:
        EvoVitError: What :func:`.export_onnx`, :func:`.export_baseline` and :func:`.build_engine` raise; mistakes in the job
            show before anything takes time. Nothing was written.
    """
    building = job.building()
    precision = job.precision or ("fp32" if building is None else building.precision or "fp16")
    model = dataclasses.replace(job.options.model, precision=precision)  # type: ignore[arg-type]
    options = dataclasses.replace(job.options, model=model)
    tell("reading", 0, None)
    loaded = job.source.load()
    for text in loaded.notes:
        note(text)
    path = job.output or Path(default_name(loaded.recipe, options))
    if building is not None and job.output is None:
        path = path.with_suffix(".engine")
    onnx = path if building is None else path.with_suffix(".onnx")
    check_not_read((path, onnx, onnx.with_suffix(".json")), job.source.files)

    def write(to: Path, **more: Any) -> ExportResult:
        steps = iter(range(len(STEPS)))
        return loaded.export(to, options, step=lambda text: tell(text, next(steps), len(STEPS)), **more)

    if building is None:
        return Exported(write(path, force=job.force), None)
    build = partial(
        build_engine,
        options=building,
        progress=lambda phase, share: tell(phase.lower(), share, 1),
        prove=options.prove,
    )
    return Exported(*export_engine(path, write, build, force=job.force))

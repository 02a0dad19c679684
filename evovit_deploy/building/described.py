"""What is said of a plan that was built: its manifest, notes, and why it was not run here."""

from __future__ import annotations

from typing import Any

from ..engines.trt import engine_manifest
from ..engines.trt.api import Api, Gpu
from ..engines.trt.options import BatchProfile, BuildOptions
from ..storage.names import name_of
from .onnx_facts import OnnxFacts
from .plan import PlanReport

__all__ = ["notes_of", "plan_manifest", "why_not_run"]


def notes_of(api: Api, gpu: Gpu | None, options: BuildOptions) -> list[str]:
    """Return what a reader should know of a build with these options on this machine."""
    notes = []
    if api.rtx and options.optimization_level is not None:
        notes.append("the optimisation level made no difference to plans of TensorRT-RTX 1.7")
    if api.rtx and gpu is not None and gpu.capability not in api.compute_capabilities():  # built for others
        notes.append(
            f"{gpu.name} (compute capability {gpu.capability}) is not among those that {api.title} builds for: "
            f"{', '.join(api.compute_capabilities())}"
        )
    return notes


def plan_manifest(
    api: Api, gpu: Gpu | None, plan: bytes, facts: OnnxFacts, profile: BatchProfile, options: BuildOptions,
    report: PlanReport, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the JSON that goes beside a plan; ``status`` and ``parity`` are the caller's."""
    import hashlib
    from importlib.metadata import version

    model = facts.manifest or {}
    recipe = model.get("recipe") or {}
    images = {"name": facts.input_name, "dtype": facts.image_input, "shape": [profile.static, *facts.image_shape]}
    return {
        "schema": engine_manifest.SCHEMA,
        "kind": "engine",
        "name": model.get("name", name_of(facts.path)),
        "flavour": api.flavour,
        "version": api.version,
        "plan": {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)},
        "onnx": {"file": facts.path.name, "sha256": facts.sha256},
        "gpu": None if gpu is None else gpu.to_dict(),
        "compute_capabilities": list(options.compute_capabilities) if api.rtx or gpu is None else [gpu.capability],
        "precision": facts.precision,
        "batch": {"min": profile.min, "opt": profile.opt, "max": profile.max},
        "io": {"input": images, "outputs": {name: list(shape) for name, shape in facts.outputs.items()}},
        "num_classes": facts.num_classes,
        "transform": recipe.get("transform"),
        "model": facts.manifest,
        "options": options.to_dict(),
        "build_seconds": round(seconds, 3),
        "versions": {"evovit-deploy": version("evovit-deploy")},
        "report": report.to_dict(),
        "parity": None,
    }


def why_not_run(api: Api, gpu: Gpu | None, options: BuildOptions) -> str:
    """Return why the engine cannot run here; empty when it can."""
    if gpu is None:
        return "no usable GPU was found"
    if api.rtx and options.compute_capabilities and gpu.capability not in options.compute_capabilities:
        return f"it is not built for compute capability {gpu.capability}"
    return ""

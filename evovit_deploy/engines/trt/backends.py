"""The rows of TensorRT and TensorRT-RTX: one engine class, two libraries."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import EngineError, InputError
from ...machine.facts import gpus
from ..registry import Backend, Probes, register
from . import engine_manifest, tensorrt
from .api import rtx_runs_on

__all__: list[str] = []


def _open(path: Path, *, provider: str, threads: int | None, flavour: str = "", **options: Any) -> tensorrt.TrtEngine:
    if provider == "cpu":
        raise EngineError(f"{path} is a TensorRT engine and runs on a GPU only; give the ONNX file to run on a CPU.")
    if flavour and (found := engine_manifest.read_header(path).flavour) != flavour:
        raise InputError(f"{path} is an engine of {found}, not of {flavour}. Leave the backend out.")
    return tensorrt.TrtEngine(path, **options)


def _usable(probes: Probes) -> tuple[str, ...]:
    return ("cuda",) if gpus() else ()


def _unfit_for_rtx(probes: Probes) -> str:
    torch = probes.get("torch", {})
    capability = torch.get("capability", "")
    return f"{torch['gpu']} ({capability})" if capability and not rtx_runs_on(capability) else ""


def _usable_rtx(probes: Probes) -> tuple[str, ...]:
    return () if _unfit_for_rtx(probes) else _usable(probes)


def _elsewhere_rtx(probes: Probes) -> str:
    if gpu := _unfit_for_rtx(probes):
        return f"it does not run on {gpu}; use tensorrt, inductor, or onnxruntime with CUDA"
    return "no NVIDIA GPU was found: it builds here and runs on one only; give the ONNX file to run on a CPU"


_TENSORRT = Backend(
    name="tensorrt",
    description="TensorRT; needs an NVIDIA GPU",
    kind="engine",
    files="TensorRT engines",
    suffixes=(".engine", ".plan", ".trt"),
    open=_open,
    module="tensorrt",
    accepts=("device", "cuda_graphs", "max_contexts", "warm_up", "runtime_cache"),
    providers=("cuda",),
    platform="tensorrt_plan",
    extra="tensorrt",
    built=True,
    missing="Make one with: evovit build {stem}.onnx -o {path}",
    usable=_usable,
    elsewhere="no NVIDIA GPU was found, and it builds and runs on one only; give the ONNX file to run on a CPU",
    describe=engine_manifest.describe_engine,
    sealed=engine_manifest.sealed,
)
register(_TENSORRT)
register(
    dataclasses.replace(
        _TENSORRT,
        name="tensorrt-rtx",
        description="TensorRT-RTX; builds without a GPU, runs with one",
        open=partial(_open, flavour="tensorrt-rtx"),
        by_default=False,
        module="tensorrt_rtx",
        extra="rtx",
        usable=_usable_rtx,
        elsewhere=_elsewhere_rtx,
    )
)

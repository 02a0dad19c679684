"""What each command needs of a machine, one row a command or a way to call it; `evovit doctor` reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .extras import UNNEEDED, modules_of

__all__ = ["ESSENTIALS", "IMPORTED", "LOOKED_UP", "NEEDS", "Need", "lacks"]

# One process imports these in turn. torchvision is what breaks first when it does not match torch, and timm needs it;
# importing timm itself would take as long as all the others, so it is only looked up.
IMPORTED = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript")
LOOKED_UP = ("timm",)
ESSENTIALS = IMPORTED + LOOKED_UP

Probes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Need:
    """What has to work.

    Attributes:
        libraries: Modules that the package depends on.
        device: Where ONNX Runtime has to run, ``cpu`` or ``gpu``; None where nothing is run.
        extras: Every one of them, or with ``either`` one of them.
        modules: Of these extras; all but those that only make it faster if none is named.
    """

    libraries: tuple[str, ...] = ()
    device: str | None = None
    extras: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    either: bool = False


RUN = ("torch", "onnxruntime")
ON_RAY = ("ray", "starlette", "prometheus_client")
NEEDS = {
    "inspect": Need(("torch", "onnx")),
    "export": Need(ESSENTIALS, "cpu"),
    "verify": Need(("torch", "onnx", "onnxruntime"), "cpu"),
    "predict": Need(RUN, "cpu"),
    "predict (GPU)": Need(RUN, "gpu"),
    "predict --ray": Need(RUN, "cpu", ("ray",), ON_RAY),
    "eval": Need(RUN, "cpu"),
    "explain": Need(RUN, "cpu"),
    "diagnose": Need(ESSENTIALS, "cpu"),
    "sweep": Need(ESSENTIALS, "cpu"),
    "gpu-check": Need(ESSENTIALS, "cpu"),
    "build": Need(("torch", "onnx"), None, ("rtx", "tensorrt"), either=True),
    "serve": Need(("onnxruntime",), "cpu", ("serve",)),
    "serve --ray": Need(("onnxruntime",), "cpu", ("ray",), ON_RAY),
    "list": Need(),
    "list timm": Need(("timm",)),
    "doctor": Need(),
    "bench": Need(ESSENTIALS, "cpu"),
    "bench (GPU)": Need(ESSENTIALS, "gpu"),
    "bench report": Need(),
    "bench report -o": Need((), None, ("report",)),
    "bench compare": Need(),
    "bench serve": Need(("onnxruntime",), "cpu", ("serve",)),
    "bench serve --faults --ray": Need(("onnxruntime",), "cpu", ("ray",)),
    "package container": Need(("onnx",)),
    "package kubernetes": Need(("onnx",)),
    "package ray": Need(("onnx",)),
    "package triton": Need(("onnx",), None, ("serve",), ("grpc", "tritonclient.grpc")),
}


def lacks(need: Need, probes: Probes) -> str:
    """Say why a command does not work; empty if it does.

    Args:
        need: What it needs.
        probes: Module -> ``state`` and, for onnxruntime, its providers.
    """
    bad = [name for name in need.libraries if probes.get(name, {}).get("state") != "ok"]
    if bad:
        return f"{', '.join(bad)} cannot be imported"
    ort = probes.get("onnxruntime", {})
    if need.device == "gpu" and (problem := ort.get("cuda_problem", "onnxruntime was not asked")):
        return str(problem)
    if need.device == "cpu" and "CPUExecutionProvider" not in ort.get("providers", []):
        return "onnxruntime has no CPU provider"
    missing = [reason for extra in need.extras if (reason := _without(extra, need.modules, probes))]
    if need.either and len(missing) < len(need.extras):
        return ""
    return (" and " if need.either else "; ").join(missing)


def _without(extra: str, modules: Iterable[str], probes: Probes) -> str:
    known = modules_of(extra)
    wanted = [name for name in known if (name in modules if modules else name not in UNNEEDED)]
    bad = sorted({known[name] for name in wanted if probes.get(name, {}).get("state") != "ok"})
    return f"without {', '.join(bad)} (extra `{extra}`)" if bad else ""

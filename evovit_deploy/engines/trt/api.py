"""The thin layer over what `tensorrt` and `tensorrt_rtx` share: which module, which version, which GPU, what was logged.

Polygraphy also covers both, but by an environment variable read at import, so one process cannot choose between them; its
loaders log to the console, and take neither RTX compute capabilities nor an in-memory plan log. The two Python modules have
the same API, so they are called directly here.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from ...errors import EngineError, InputError
from ...machine.extras import install_advice
from ...suggest import did_you_mean

__all__ = ["FLAVOURS", "Api", "Gpu", "PlanLogger", "find_gpu", "load_api", "pick_flavour", "plan_logger", "rtx_runs_on"]

FLAVOURS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
OLDEST = {"tensorrt": (10, 12), "tensorrt-rtx": (1, 2)}  # the first with what is used here


@dataclass(frozen=True)
class Api:
    """One flavour of TensorRT: the module, what it is called on the command line, and its version."""

    trt: Any
    flavour: str
    version: str

    @property
    def rtx(self) -> bool:
        """Whether this is TensorRT-RTX."""
        return self.flavour == "tensorrt-rtx"

    @property
    def title(self) -> str:
        """For messages: ``TensorRT-RTX 1.7.1.116``."""
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"

    def compute_capabilities(self) -> dict[str, Any]:
        """``"8.6"`` -> member of the API's enum; empty for full TensorRT, which builds for the GPU it runs on."""
        members = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
        found = {name: re.fullmatch(r"SM(\d+)(\d)", name) for name in members}
        return {f"{m[1]}.{m[2]}": members[name] for name, m in found.items() if m} if self.rtx else {}


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch sees: index, name, compute capability such as ``8.9``, memory in bytes."""

    index: int
    name: str
    capability: str
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"name": self.name, "compute_capability": self.capability, "memory_bytes": self.memory}


def rtx_runs_on(capability: str) -> bool:
    """Return whether TensorRT-RTX runs on GPUs of this compute capability, such as ``8.9``.

    Those of its builder's `ComputeCapability` (version 1.7), and what is newer. Server GPUs (9.0, 10.x) and Jetsons (8.7) are not
    among them: on an H100 it builds, and then refuses what it built.
    """
    return capability in ("7.5", "8.0", "8.6", "8.9") or tuple(map(int, capability.split("."))) >= (12, 0)


def find_gpu(index: int = 0) -> Gpu | None:
    """Return the GPU with this index, or None where there is no usable GPU or driver."""
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    properties = torch.cuda.get_device_properties(index)
    return Gpu(index, properties.name, f"{properties.major}.{properties.minor}", properties.total_memory)


def pick_flavour(target: str, gpu: Gpu | None) -> str:
    """Return the flavour that ``--target`` means on this machine.

    ``auto`` is full TensorRT where it is installed and there is a GPU (it needs one to build), else TensorRT-RTX.

    Raises:
        InputError: An unknown target.
        EngineError: Neither flavour is installed.
    """
    if target in FLAVOURS:
        return target
    if target != "auto":
        raise InputError(
            f"target {target!r} is unknown; valid: auto, {', '.join(FLAVOURS)}.{did_you_mean(target, FLAVOURS)}"
        )
    if gpu is not None and _installed("tensorrt"):
        return "tensorrt"
    if _installed("tensorrt-rtx"):
        return "tensorrt-rtx"
    if _installed("tensorrt"):
        raise EngineError(
            "TensorRT is installed, but no usable GPU was found, and it needs one to build. Build on a GPU machine, or "
            f"build with TensorRT-RTX, which needs none. {install_advice('rtx')}"
        )
    raise EngineError(f"neither TensorRT nor TensorRT-RTX is installed. {install_advice('tensorrt', 'rtx')}")


def load_api(flavour: str) -> Api:
    """Import one flavour.

    Raises:
        EngineError: It is not installed, cannot be loaded, or is too old.
    """
    title = "TensorRT-RTX" if flavour == "tensorrt-rtx" else "TensorRT"
    if not _installed(flavour):
        raise EngineError(f"{title} is not installed. {install_advice(EXTRAS[flavour])}")
    try:
        trt = importlib.import_module(FLAVOURS[flavour])
        version = str(trt.__version__)
    except Exception as error:  # its libraries are loaded here, and fail in many ways
        raise EngineError(
            f"{title} is installed but cannot be loaded: {error}. {install_advice(EXTRAS[flavour])}"
        ) from error
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST[flavour]:
        wanted = ".".join(map(str, OLDEST[flavour]))
        raise EngineError(
            f"{title} {version} is too old; {wanted} or newer is needed. {install_advice(EXTRAS[flavour])}"
        )
    return Api(trt, flavour, version)


def _installed(flavour: str) -> bool:
    try:
        return importlib.util.find_spec(FLAVOURS[flavour]) is not None
    except (ImportError, ValueError):
        return False


class PlanLogger:
    """What is worth keeping of TensorRT's log; :func:`plan_logger` ties it to a flavour's ``ILogger``.

    Attributes:
        errors: Messages of severity error and above.
        warnings: Messages of severity warning.
        plan: The finished plan, a line for each kernel, as ``ProfilingVerbosity.DETAILED`` logs it.
        memory: ``weights`` and ``activation`` -> bytes, where they were logged.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.plan = ""
        self.memory: dict[str, int] = {}

    def keep(self, severity: int, message: str) -> None:
        """Take one message; severity 0 internal error, 1 error, 2 warning, 3 info, 4 verbose."""
        if severity <= 1:
            self.errors.append(message)
        elif severity == 2:
            self.warnings.append(message)
        elif "LayerType:" in message:
            self.plan = f"{self.plan}\n{message}" if self.plan else message
        elif found := re.match(r"Total (Weights|Activation) Memory: (\d+) bytes", message):
            self.memory[found[1].lower()] = int(found[2])

    def problem(self) -> str:
        """Return the first error, shortened to what a reader can use; where there is none, says so."""
        if not self.errors:
            return "no reason was given"
        # CUDA's complaint about a missing driver follows every other error on a machine without a GPU.
        real = [text for text in self.errors if "catchCudaError" not in text] or self.errors
        return real[0].strip().rstrip(".")


def plan_logger(api: Api) -> Any:
    """Return an ``ILogger`` of this flavour with a :class:`PlanLogger` as ``kept``. It prints nothing and raises nothing."""
    trt = api.trt

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.kept = PlanLogger()

        def log(self, severity: Any, msg: str) -> None:  # called from TensorRT's threads: an exception would abort
            self.kept.keep(int(severity), msg)

    return Logger()

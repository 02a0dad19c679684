"""What an engine is built with, whatever flavour of TensorRT builds it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...suggest import did_you_mean
from .api import FLAVOURS

__all__ = ["BatchProfile", "BuildOptions"]

HARDWARE = ("none", "ampere+", "same-compute-capability")
TILING = ("none", "fast", "moderate", "full")
MEBI = 1 << 20


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes that an engine takes, and the one it is tuned for; all equal for a static engine."""

    min: int
    opt: int
    max: int

    @property
    def static(self) -> int | None:
        """The only batch size, or None."""
        return self.max if self.min == self.max else None


@dataclass(frozen=True)
class BuildOptions:
    """How to build; the defaults suit a service with mixed batch sizes.

    Attributes:
        target: ``auto``, ``tensorrt`` or ``tensorrt-rtx``.
        batch: Static batch size; the plan of a static engine is leaner. Excludes the next three.
        min_batch, opt_batch, max_batch: Batch profile of a dynamic engine; 1, 8 and 64 where None, ``opt_batch`` clipped.
        optimization_level: 0 to 5, how long full TensorRT searches; None is its default, 3.
        workspace_mib: Limit of scratch memory, MiB; None is no limit.
        hardware_compatibility: Full TensorRT: ``none``, ``ampere+`` (every GPU from compute capability 8.0), or
            ``same-compute-capability``.
        version_compatible: Full TensorRT: newer versions of the same major version can load the engine.
        tiling: Full TensorRT: how hard to tile for the L2 cache: ``none``, ``fast``, ``moderate``, ``full``.
        refit: The weights of the engine can be replaced.
        strip_plan: Leave the weights out of the plan; it is refitted from its ONNX file when opened.
        compute_capabilities: TensorRT-RTX: GPUs to build for, such as ``("8.6", "12.0")``; empty is 8.0 and newer.
        precision: Refuse an ONNX file of a different precision; None takes any.
        require_fused_attention: Refuse a plan in which any attention is not fused.
        max_kernels: Refuse a plan with more kernels.
        timing_cache: Full TensorRT: reuse kernel timings between builds.
    """

    target: str = "auto"
    batch: int | None = None
    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    optimization_level: int | None = None
    workspace_mib: int | None = None
    hardware_compatibility: str = "none"
    version_compatible: bool = False
    tiling: str = "none"
    refit: bool = False
    strip_plan: bool = False
    compute_capabilities: tuple[str, ...] = ()
    precision: str | None = None
    require_fused_attention: bool = False
    max_kernels: int | None = None
    timing_cache: bool = True

    def __post_init__(self) -> None:
        def one_of(name: str, valid: tuple[Any, ...]) -> None:
            if getattr(self, name) not in valid:
                shown = ", ".join(str(value) for value in valid if value is not None)
                hint = did_you_mean(str(getattr(self, name)), map(str, valid))
                raise InputError(f"{name} is {getattr(self, name)!r}; valid: {shown}.{hint}")

        one_of("target", ("auto", *FLAVOURS))
        one_of("hardware_compatibility", HARDWARE)
        one_of("tiling", TILING)
        one_of("precision", (None, "fp32", "fp16", "bf16"))
        for name in ("batch", "min_batch", "opt_batch", "max_batch", "workspace_mib", "max_kernels"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"{name} is {value!r}; give a whole number from 1.")
        if self.optimization_level is not None and self.optimization_level not in range(6):
            raise InputError(f"optimization_level is {self.optimization_level}; valid: 0 to 5.")
        if not isinstance(self.compute_capabilities, tuple):
            raise InputError("compute_capabilities is a list, such as ['8.6', '12.0'].")
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"\d+\.\d", str(capability)):
                raise InputError(f"compute capability {capability!r} is not one; they look like 8.6 or 12.0.")
        if self.batch is not None and (self.min_batch, self.opt_batch, self.max_batch) != (None, None, None):
            raise InputError("give either a static batch, or the minimum, optimum and maximum of a dynamic one.")
        self.profile()

    def profile(self, static: int | None = None) -> BatchProfile:
        """Return the batch profile.

        Args:
            static: The batch size that the ONNX file is bound to, or None.

        Raises:
            InputError: A minimum above the maximum, or sizes that the ONNX file does not take.
        """
        if self.batch is not None:
            result = BatchProfile(self.batch, self.batch, self.batch)
        elif static is not None and (self.min_batch, self.opt_batch, self.max_batch) == (None, None, None):
            result = BatchProfile(static, static, static)
        else:
            low = self.min_batch or 1
            high = self.max_batch or max(64, low, self.opt_batch or 0)
            result = BatchProfile(low, self.opt_batch or min(max(8, low), high), high)
        if not result.min <= result.opt <= result.max:
            raise InputError(
                f"batch profile {result.min}/{result.opt}/{result.max}: the minimum, optimum and maximum must ascend."
            )
        if static is not None and (result.min, result.max) != (static, static):
            asked = f"batch {result.min} is" if result.static else f"batches {result.min} to {result.max} are"
            raise InputError(
                f"the ONNX file has a static batch of {static}, so {asked} impossible. "
                f"Leave the batch options out, or export again with --batch dynamic."
            )
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {**dataclasses.asdict(self), "compute_capabilities": list(self.compute_capabilities)}

    def command(self, onnx: str, engine: str) -> str:
        """Return the `evovit build` command with these options, quoted for a shell."""
        words = ["evovit", "build", onnx, "-o", engine]
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value == field.default:
                continue
            if field.name == "compute_capabilities":
                words += ["--compute-capability", ",".join(value)]
            elif field.name == "timing_cache":
                words.append("--no-timing-cache")
            else:
                words += [option] if value is True else [option, str(value)]
        return shlex.join(words)

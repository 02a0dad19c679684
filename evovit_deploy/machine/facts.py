"""Where a measurement was made: processor, software, load. No host name and no path ever enters it."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "available_cpus",
    "cpu_features",
    "cpu_model",
    "environment",
    "gpus",
    "load_average",
    "memory_bytes",
    "package_version",
    "physical_cores",
]

PACKAGES = ("evovit-deploy", "torch", "onnxruntime", "numpy", "timm", "onnx", "tensorrt", "tensorrt_rtx")
# Distributions that install a package under another name than its own.
ALIASES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "tensorrt_rtx": ("tensorrt-rtx", "tensorrt_rtx")}
NVIDIA_SMI_SECONDS = 5.0
# Of what Linux lists, the instructions of x86 and Arm that a compiler chooses by itself; the rest is of the system's concern.
_INSTRUCTIONS = re.compile(r"avx|sse|ssse|pni$|fma|f16c|bmi|abm|popcnt|movbe|amx|gfni|asimd|sve|i8mm|bf16|fphp|atomics")


def cpu_model() -> str:
    """Return the processor as it calls itself, or the machine type where it does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        found = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
        if found:
            return found
    return platform.processor() or platform.machine() or "unknown"


def cpu_features() -> tuple[str, ...] | None:
    """Return the extensions of the instruction set that a compiler may use, ascending; None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.split(":", 1)[1] for line in lines if line.lower().startswith(("flags", "features"))), None)
    if found is None:
        return None
    return tuple(sorted(name for name in set(found.split()) if _INSTRUCTIONS.match(name)))


def available_cpus() -> list[int]:
    """Return the numbers of the logical processors that this process may run on."""
    import psutil

    try:
        return sorted(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS
        return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """Return processors' worth of time that a container grants (control group v2), or None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def physical_cores() -> int:
    """Return cores this process may use, hyper-threads counted once and a container's limit respected; at least 1."""
    cores = set()
    for cpu in available_cpus():
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            cores.add(siblings.read_text(encoding="utf-8").strip())
        except OSError:
            cores.add(str(cpu))
    quota = cpu_quota()
    return max(1, len(cores) if quota is None else min(len(cores), math.ceil(quota)))


def memory_bytes() -> int:
    """Return the physical memory, bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def load_average() -> float | None:
    """Return processes that were running or waiting over the last minute, or None where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def gpus() -> list[dict[str, str]]:
    """Return the name, driver and memory of each NVIDIA GPU that ``nvidia-smi`` lists; empty without one."""
    lines = _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    found = [[part.strip() for part in line.split(",")] for line in lines.splitlines()]
    return [dict(zip(("name", "driver", "memory"), parts)) for parts in found if len(parts) == 3]


def package_version(name: str) -> str | None:
    """Return the installed version of a package, without importing it; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    loaded = getattr(sys.modules.get(name), "__version__", None)
    if name in ALIASES and loaded is not None:  # several of its distributions may be installed, over one another
        return str(loaded)
    for distribution in ALIASES.get(name, (name,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def environment(threads: int | None, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return what a reader must know to repeat a measurement.

    Args:
        threads: CPU threads that the engines were opened with; None if they chose themselves.
        packages: Whose versions count, beside those that always do.
    """
    return {
        "cpu": cpu_model(),
        "logical_cpus": len(available_cpus()),
        "physical_cores": physical_cores(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {
            name: found
            for name in dict.fromkeys((*PACKAGES, *packages))
            if (found := package_version(name)) is not None
        },
        "gpus": gpus(),
        "threads": threads,
        "load_average": load_average(),
    }


def _output(command: list[str]) -> str:
    """Standard output of a command, or nothing if it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

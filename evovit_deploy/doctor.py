"""What this machine has, and which commands therefore work."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .machine.extras import extras, install_advice, modules_of
from .machine.facts import available_cpus, cpu_model, gpus, memory_bytes, package_version, physical_cores
from .machine.needs import ESSENTIALS, NEEDS, Need, lacks
from .machine.probing import OPTIONAL, OPTIONAL_LOOKED_UP, exists, probe_imports

if TYPE_CHECKING:
    from .engines.registry import Backend

__all__ = ["OPTIONAL", "OPTIONAL_LOOKED_UP", "Checkup", "Command", "Finding", "examine", "judge", "probe_imports"]

Status = Literal["ok", "missing", "broken"]
LOW_DISK_GIB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: What.
        status: ``ok``, ``missing`` or ``broken``.
        value: What was found, or why not.
        essential: Whether nothing works without it.
    """

    name: str
    status: Status
    value: str
    essential: bool = False


@dataclass(frozen=True)
class Command:
    """Whether a command works here, and if not, why."""

    name: str
    works: bool
    reason: str = ""


@dataclass(frozen=True)
class Checkup:
    """Everything that was found."""

    findings: tuple[Finding, ...]
    commands: tuple[Command, ...]

    @property
    def ok(self) -> bool:
        """Whether the essentials work; a GPU is not one."""
        return all(finding.status == "ok" for finding in self.findings if finding.essential)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"schema": 1, "kind": "doctor", "ok": self.ok, **dataclasses.asdict(self)}


def examine(imports: dict[str, dict[str, Any]] | None = None, commands: Sequence[str] = ()) -> Checkup:
    """Look at this machine; nothing that is missing or broken raises.

    Args:
        imports: Results of :func:`probe_imports`, to be made if None.
        commands: Commands that there are, such as ``bench report``; see :func:`judge`.
    """
    found = probe_imports() if imports is None else imports
    findings = [
        _guarded("Python", platform.python_version),
        _guarded("system", lambda: f"{platform.system()} {platform.release()} ({platform.machine()})"),
        _guarded("CPU", _cpu),
        _guarded("memory", _memory),
        _guarded("disk for temporary files", _disk),
        _guarded("GPU", _gpu),
        *(_library(name, found.get(name, {})) for name in ESSENTIALS),
        _cuda(found),
        *_backends(found),
        *(_guarded(f"extra {extra}", partial(_extra, extra, found)) for extra in extras()),
    ]
    return Checkup(tuple(findings), judge(found, commands))


def judge(imports: dict[str, dict[str, Any]], commands: Sequence[str] = ()) -> tuple[Command, ...]:
    """Return which commands work, given what could be imported.

    Args:
        imports: Results of :func:`probe_imports`.
        commands: Commands that there are; one that :data:`~.needs.NEEDS` does not know needs all that is essential.
    """
    needs = {**NEEDS, **{name: Need(ESSENTIALS, "cpu") for name in commands if name not in NEEDS}}
    reasons = {name: lacks(need, imports) for name, need in needs.items()}
    return tuple(Command(name, not reason, reason) for name, reason in reasons.items())


def tiny_model() -> bytes:
    """Return the smallest ONNX model, to see whether a provider really loads."""
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _guarded(name: str, look: Callable[[], tuple[Status, str] | str]) -> Finding:
    """Run one probe; whatever it raises is what was found."""
    try:
        result = look()
    except Exception as error:
        return Finding(name, "broken", f"{type(error).__name__}: {error}")
    status, value = ("ok", result) if isinstance(result, str) else result
    return Finding(name, status, value)  # type: ignore[arg-type]


def _cpu() -> str:
    return f"{cpu_model()}, {physical_cores()} cores, {len(available_cpus())} threads"


def _memory() -> str:
    return f"{memory_bytes() / 2**30:.1f} GiB"


def _disk() -> tuple[Status, str] | str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    text = f"{free:.1f} GiB free"
    return text if free >= LOW_DISK_GIB else ("broken", f"{text}; exporting a large model needs {LOW_DISK_GIB:g} GiB")


def _gpu() -> tuple[Status, str] | str:
    found = gpus()
    if not found:
        return "missing", "no NVIDIA GPU or driver (nvidia-smi lists none)"
    return "; ".join(f"{gpu['name']}, driver {gpu['driver']}, {gpu['memory']}" for gpu in found)


def _library(name: str, probe: dict[str, Any]) -> Finding:
    if probe.get("state") == "ok":
        value = probe.get("version") or package_version(name) or "version unknown"
        if name == "torch":
            value += f", CUDA {probe['cuda']}" if probe.get("cuda") else ", CPU only"
            value += f", {probe['gpu']}" if probe.get("gpu") else ", no usable GPU"
        if name == "onnxruntime":
            value += ", " + ", ".join(p.removesuffix("ExecutionProvider") for p in probe.get("providers", []))
        return Finding(name, "ok", value, essential=True)
    if probe.get("state") == "broken":
        return Finding(name, "broken", f"{probe.get('error', 'cannot be imported')}", essential=True)
    return Finding(name, "missing", f"not installed (pip install {name})", essential=True)


def _cuda(imports: dict[str, dict[str, Any]]) -> Finding:
    problem = imports.get("onnxruntime", {}).get("cuda_problem", "onnxruntime cannot be imported")
    return Finding("ONNX Runtime on the GPU", "missing" if problem else "ok", str(problem or "works"))


def _backends(imports: dict[str, dict[str, Any]]) -> list[Finding]:
    """Every backend, those of other packages too."""
    try:
        from .engines import registry  # which imports numpy: an install of it that is broken is found, and no end
    except Exception as error:
        return [Finding("backends", "broken", f"{type(error).__name__}: {error}")]
    return [
        *(_guarded(f"backend {row.name}", partial(_backend, row, imports)) for row in registry.backends()),
        *(Finding(f"backend {name}", "broken", problem) for name, problem in registry.broken().items()),
    ]


def _backend(row: Backend, imports: dict[str, dict[str, Any]]) -> tuple[Status, str] | str:
    """Where a backend can run models here, in which version; or why it cannot, and what to do."""
    probe = imports.get(row.module) or {"state": "ok" if exists(row.module) else "missing"}
    usable, problem = row.here({**imports, row.module: probe})
    if problem:
        return ("broken" if probe["state"] == "broken" else "missing"), problem
    version = probe.get("version") or package_version(row.module) or ""
    return f"{row.module} {version}".strip() + f", on {', '.join(usable)}"


def _extra(extra: str, imports: dict[str, dict[str, Any]]) -> tuple[Status, str] | str:
    """What an extra brings, and how to get what is missing of it."""
    known = modules_of(extra)
    states = {title: imports.get(module, {"state": "missing"}) for module, title in known.items()}
    missing = [title for title, probe in states.items() if probe["state"] == "missing"]
    broken = [f"{title}: {probe.get('error')}" for title, probe in states.items() if probe["state"] == "broken"]
    if broken:
        return "broken", f"{'; '.join(broken)}. {install_advice(extra)}"
    if missing:
        return "missing", f"without {', '.join(missing)}. {install_advice(extra)}"
    return ", ".join(f"{title} {package_version(title.partition('[')[0]) or ''}".strip() for title in states)

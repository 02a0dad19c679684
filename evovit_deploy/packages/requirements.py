"""What a container has to install: the versions of this environment, for Linux.

To serve an ONNX file on a CPU nothing of torch is needed, which with CUDA is most of the size of a full installation. So that
list is complete in itself, for ``pip install --no-deps``; on a GPU pip resolves what is not listed.
"""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..engines.registry import find
from ..storage.files import sha256

__all__ = ["PACKAGE", "requirements"]

PACKAGE = "evovit-deploy"
# Of exporting, building and measuring; an engine on ONNX Runtime imports none of them.
NOT_TO_SERVE = {"torch", "torchvision", "timm", "onnxscript", "polygraphy", "safetensors", "wheel"}
TWINS = {"onnxruntime-gpu": ("onnxruntime",)}  # with and without CUDA: the same versions, needing the same
LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
}


def requirements(wheel: Path, *, gpu: bool, engine: tuple[str, str] | None = None) -> list[str]:
    """Return lines of a requirements file.

    Args:
        wheel: Of this package; pip checks its SHA-256 and expects it beside the requirements, in /tmp.
        gpu: With all dependencies of the package, torch and the CUDA libraries of its wheel among them.
        engine: Backend of an engine, and the version that made it, which has to run it.
    """
    row = None if engine is None else find(engine[0])
    extras = {"serve"} | ({row.extra} if row is not None and row.extra else set())
    ours = f"{PACKAGE}[{','.join(sorted(extras))}]" if gpu else PACKAGE
    needed = set() if row is None else {canonicalize_name(row.module)}
    found = _closure(extras if gpu else {"serve"}, set() if gpu else NOT_TO_SERVE - needed)
    if row is not None and engine is not None:
        found[canonicalize_name(row.module)] = f"=={engine[1]}"
    if not gpu:
        found["onnxruntime"] = found.pop("onnxruntime-gpu")
    return [
        f"{ours} @ file:///tmp/{quote(wheel.name)}#sha256={sha256(wheel)}",
        *(f"{name}{specifier}" for name, specifier in sorted(found.items())),
    ]


def _closure(extras: set[str], skipped: set[str]) -> dict[str, str]:
    """Everything that this package with these extras needs on Linux: name -> the version here, ``==1.2``, or where it is not
    installed (another platform needs other things) what is asked of it."""
    found: dict[str, str] = {}
    todo = [(PACKAGE, extra) for extra in ("", *sorted(extras))]
    seen = set(todo)
    environment: dict[str, str] = {key: str(value) for key, value in default_environment().items()} | LINUX
    while todo:
        name, extra = todo.pop()
        for text in _requires(name):
            needed = Requirement(text)
            other = canonicalize_name(needed.name)
            wanted = needed.marker is None or needed.marker.evaluate(environment | {"extra": extra})
            if not wanted or other in skipped:
                continue
            if other != PACKAGE:
                found[other] = _specifier(other, str(needed.specifier))
            new = {(other, each) for each in ("", *needed.extras)} - seen
            seen |= new
            todo += sorted(new)
    return found


def _requires(name: str) -> list[str]:
    here = _installed(name)
    return [] if here is None else here.requires or []


def _specifier(name: str, otherwise: str) -> str:
    """The version that is installed here, without the part after ``+`` that only some builds have."""
    here = _installed(name)
    return otherwise if here is None else f"=={here.version.partition('+')[0]}"


def _installed(name: str) -> metadata.Distribution | None:
    for each in (name, *TWINS.get(name, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.distribution(each)
    return None

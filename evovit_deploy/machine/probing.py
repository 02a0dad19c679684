"""Importing libraries in separate processes: a broken install may crash the interpreter, and who asks must survive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .extras import extras, modules_of
from .facts import package_version
from .needs import IMPORTED, LOOKED_UP

__all__ = ["OPTIONAL", "OPTIONAL_LOOKED_UP", "exists", "probe_imports", "with_this_package"]

SECONDS = 60.0

# Run by a fresh interpreter with module names as arguments: one line of JSON for each, written as soon as it is known.
_PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    found = {"name": name, "state": "ok"}
    try:
        module = importlib.import_module(name)
        found["version"] = str(getattr(module, "__version__", ""))
        if name == "torch":
            found["cuda"] = module.version.cuda
            here = module.cuda.is_available()
            found["gpu"] = module.cuda.get_device_name(0) if here else None
            found["capability"] = "%d.%d" % module.cuda.get_device_capability(0) if here else None
        if name == "onnxruntime":
            found["providers"] = module.get_available_providers()
            try:
                from evovit_deploy.engines.ort.session import cuda_problem
                found["cuda_problem"] = cuda_problem()
                if found["cuda_problem"] is None:
                    from evovit_deploy.doctor import tiny_model
                    from evovit_deploy.engines.ort.session import session
                    session(tiny_model(), "cuda", 1)
            except BaseException as error:
                found["cuda_problem"] = f"{type(error).__name__}: {error}"
    except BaseException as error:
        found["state"], found["error"] = "broken", f"{type(error).__name__}: {error}"
    print(json.dumps(found), flush=True)
"""

# Not imported: TensorRT's libraries may not load without a driver, and Ray takes seconds.
OPTIONAL_LOOKED_UP = ("ray", "tensorrt", "tensorrt_rtx")
OPTIONAL = tuple({module: 0 for extra in extras() for module in modules_of(extra) if module not in OPTIONAL_LOOKED_UP})


def probe_imports(
    imported: tuple[str, ...] = IMPORTED + OPTIONAL,
    looked_up: tuple[str, ...] = LOOKED_UP + OPTIONAL_LOOKED_UP,
    seconds: float = SECONDS,
) -> dict[str, dict[str, Any]]:
    """Import modules in another process.

    Args:
        imported: Modules to import; after a crash the rest is tried in a new process.
        looked_up: Modules that only have to be installed.
        seconds: Time limit of each process.

    Returns:
        Module -> ``state`` (``ok``, ``missing`` or ``broken``), ``version``, ``error``, and for torch and onnxruntime
        what they say about CUDA.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in looked_up:
        found[name] = {"name": name, "state": "ok" if exists(name) else "missing", "version": package_version(name)}
    todo = []
    for name in imported:
        if exists(name):
            todo.append(name)
        else:
            found[name] = {"name": name, "state": "missing"}
    while todo:
        ended, output = "", ""
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, *todo],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=seconds,
                check=False,
                env=with_this_package(),
            )
            output, ended = done.stdout, f"the process ended with code {done.returncode}"
        except subprocess.TimeoutExpired as error:
            raw = error.stdout or b""
            output, ended = raw if isinstance(raw, str) else raw.decode(errors="replace"), f"no answer in {seconds:g} s"
        except OSError as error:
            ended = f"no process could be started: {error}"
        reached = _parse(output, found)
        # The first without an answer took the interpreter down.
        culprit = next((name for name in todo if name not in reached), None)
        if culprit is None:
            break
        found[culprit] = {"name": culprit, "state": "broken", "error": f"importing it failed: {ended}"}
        todo = todo[todo.index(culprit) + 1 :]
    return found


def with_this_package() -> dict[str, str]:
    """Return the environment in which a new interpreter imports this very package, wherever it lies."""
    folder = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}


def _parse(output: str, found: dict[str, dict[str, Any]]) -> set[str]:
    """Enter finished probes into ``found`` and return their names; other lines are what a library printed."""
    reached = set()
    for line in output.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and entry.get("state") in ("ok", "broken") and "name" in entry:
            found[entry["name"]] = entry
            reached.add(entry["name"])
    return reached


def exists(module: str) -> bool:
    """Whether a module could be imported, by what lies on the path."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False

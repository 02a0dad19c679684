"""The house: a file imports only from lower floors or from its own room, and no files import each other in a circle.

Lazy imports and those under TYPE_CHECKING count: a type that only an upper floor has is a part of the design too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "evovit_deploy"
# From the ground up. Rooms of one floor do not import each other; a file stands where its longest entry here says.
FLOORS = (
    "errors suggest",
    "storage",
    "machine",
    "classes recipes",
    "models",
    "manifest",
    "images",
    "checkpoint",
    "engines",
    "export describe explain evaluate serve",
    "building cluster",
    "bench diagnose packages serve.ray",
    "sweep loadtest gpucheck",
    "catalogue doctor",
    "",  # evovit_deploy itself: the public names
    "cli",
    "__main__",
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor.split() or [""]}


def name_of(path: Path, package: Path = PACKAGE) -> str:
    """``engines/base.py`` -> ``engines.base``, ``engines/__init__.py`` -> ``engines``."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str], package: Path = PACKAGE) -> set[str]:
    """The modules of this package that a file imports, anywhere in it."""
    found = set()
    folder = path.parent.relative_to(package).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == package.name]
            found.update(names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = (package.name, *folder)[: len(folder) + 2 - node.level]
                module = ".".join((*above, *filter(None, [node.module])))
            else:
                module = node.module or ""
            if module.split(".")[0] == package.name:
                module = module.partition(".")[2]
                for alias in node.names:
                    inner = ".".join(filter(None, (module, alias.name)))
                    found.add(inner if inner in modules else module)
    return found - {name_of(path, package)}


def room_of(module: str) -> str:
    """The entry of FLOORS that a module stands in: itself, or the nearest package above it."""
    while module not in FLOOR:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return ""
    return module


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    files = {name_of(path, package): path for path in package.rglob("*.py")}
    return {name: imports_of(path, set(files), package) for name, path in files.items()}


def offences(imports: dict[str, set[str]]) -> list[str]:
    """``a imports b`` for every import that does not go down or stay in its room."""
    return [
        f"{module} (floor of {room_of(module) or 'evovit_deploy'}) imports {other} ({room_of(other) or 'evovit_deploy'})"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if room_of(module) != room_of(other) and FLOOR[room_of(module)] <= FLOOR[room_of(other)]
    ]


def test_every_module_has_a_floor() -> None:
    top = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert {name for name in top if name not in FLOOR} <= {"__init__", "__pycache__", "_data"}


def test_imports_go_down() -> None:
    assert offences(graph()) == []


def test_no_circle() -> None:
    try:
        tuple(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("line", "offender"),
    [
        ("from ..cli import main", "images.new (floor of images) imports cli (cli)"),
        (
            "def f():\n    from ..engines.base import Engine",
            "images.new (floor of images) imports engines.base (engines)",
        ),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from evovit_deploy import Engine",
            "images.new (floor of images) imports  (evovit_deploy)",
        ),
        ("import evovit_deploy.serve.ray", "images.new (floor of images) imports serve.ray (serve.ray)"),
    ],
)
def test_an_offender_is_named(tmp_path: Path, line: str, offender: str) -> None:
    package = tmp_path / "evovit_deploy"
    for name in (
        "cli/__init__.py",
        "engines/__init__.py",
        "engines/base.py",
        "serve/ray.py",
        "images/new.py",
        "__init__.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    (package / "images" / "new.py").write_text(f"from ..errors import InputError\n{line}\n")
    assert offences(graph(package)) == [offender]

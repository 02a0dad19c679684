"""One word for one thing: no two classes of the package share a name, private ones included, unless they are the same thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "evovit_deploy"
# The same part in each family of models, and the model that is judged, by its speed or by its answers.
SAME = {
    "Attend": {"models.levit.layers", "models.vit.layers"},
    "Attention": {"models.levit.layers", "models.vit.layers"},
    "Block": {"models.levit.layers", "models.vit.layers"},
    "Group": {"models.levit.schedule", "models.vit.schedule"},
    "Subject": {"bench.subject", "evaluate.runner"},
}
# Groups of options are named for the page of one command, in its own file.
APART = "cli"


def classes(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Name without leading underscores -> modules with a class of that name, at any depth."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] == APART:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].add(".".join(parts))
    return found


def test_no_name_means_two_things() -> None:
    doubles = {name: modules for name, modules in classes().items() if len(modules) > 1}
    assert {name: modules for name, modules in doubles.items() if SAME.get(name) != modules} == {}
    assert set(SAME) <= set(doubles)  # what is no double any more goes from the list


@pytest.mark.parametrize("second", ["class Thing: ...", "class _Thing: ...", "def f():\n    class Thing: ..."])
def test_a_double_is_seen(second: str, tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "a.py").write_text("class Thing: ...")
    (tmp_path / "room" / "b.py").write_text(second)
    assert classes(tmp_path)["Thing"] == {"a", "room.b"}

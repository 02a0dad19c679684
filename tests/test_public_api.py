"""What `import evovit_deploy` offers, and what it does not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import evovit_deploy

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "timm", "PIL", "polygraphy")


def test_every_name_is_there() -> None:
    for name in evovit_deploy.__all__:
        assert getattr(evovit_deploy, name).__name__ == name
    assert set(evovit_deploy.__all__) <= set(dir(evovit_deploy))
    with pytest.raises(AttributeError, match="has no attribute 'surprise'"):
        _ = evovit_deploy.surprise


def test_the_promised_interface() -> None:
    promised = {
        "load_checkpoint",
        "export_onnx",
        "verify",
        "build_engine",
        "BuildOptions",
        "Engine",
        "TrtEngine",
        "benchmark",
    }
    assert promised <= set(evovit_deploy.__all__)


@pytest.mark.parametrize(
    "statement", ["import evovit_deploy", "import evovit_deploy.cli", "from evovit_deploy import Recipe, EngineError"]
)
def test_nothing_heavy_is_loaded(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    root = Path(__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        (["export", "--help"], {}),
        (["--version"], {}),
        (["list"], {}),
        ([], {"COMP_WORDS": "evovit export --recipe evo", "COMP_CWORD": "3", "_EVOVIT_COMPLETE": "complete_bash"}),
        ([], {"COMP_WORDS": "evovit bench run --suite q", "COMP_CWORD": "4", "_EVOVIT_COMPLETE": "complete_bash"}),
    ],
)
def test_what_a_person_waits_for_loads_nothing_heavy(arguments: list[str], environment: dict[str, str]) -> None:
    program = (
        f"import sys\nsys.argv = ['evovit', *{arguments!r}]\nfrom evovit_deploy.cli import main\n"
        f"try:\n    main()\nfinally:\n    print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[1]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root, env={**os.environ, **environment})
    assert found.returncode == 0, found.stderr
    *shown, last = found.stdout.splitlines()
    assert last == "loaded: []"
    assert shown

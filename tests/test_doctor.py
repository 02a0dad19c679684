"""`doctor` never crashes, whatever it finds; nor does the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from evovit_deploy import doctor
from evovit_deploy.cli import app
from evovit_deploy.cli.doctor import command_names
from evovit_deploy.cli.doctor import doctor as command
from evovit_deploy.errors import EngineError
from evovit_deploy.machine.extras import extras, install_advice, modules_of
from evovit_deploy.machine.needs import ESSENTIALS, NEEDS

GOOD: dict[str, dict[str, Any]] = {
    **{
        name: {"name": name, "state": "ok", "version": "1.0"}
        for name in (*ESSENTIALS, *doctor.OPTIONAL, *doctor.OPTIONAL_LOOKED_UP)
    },
    "torch": {"name": "torch", "state": "ok", "version": "2.9", "cuda": "13.0", "gpu": None},
    "onnxruntime": {
        "name": "onnxruntime",
        "state": "ok",
        "version": "1.20",
        "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
        "cuda_problem": "no driver",
    },
}


def works(diagnosis: doctor.Checkup) -> dict[str, str]:
    return {entry.name: "" if entry.works else entry.reason for entry in diagnosis.commands}


def finding(diagnosis: doctor.Checkup, name: str) -> doctor.Finding:
    return next(f for f in diagnosis.findings if f.name == name)


def test_cpu_only_machine() -> None:
    found = doctor.examine(GOOD)
    assert found.ok
    assert {name: reason for name, reason in works(found).items() if reason} == {
        "predict (GPU)": "no driver", "bench (GPU)": "no driver",
    }  # fmt: skip
    assert finding(found, "torch").value == "2.9, CUDA 13.0, no usable GPU"
    assert finding(found, "ONNX Runtime on the GPU").status == "missing"


def test_machine_with_a_gpu() -> None:
    found = doctor.examine({**GOOD, "onnxruntime": {**GOOD["onnxruntime"], "cuda_problem": None}})
    assert not any(works(found).values())
    assert finding(found, "ONNX Runtime on the GPU").value == "works"


@pytest.mark.parametrize("name", ESSENTIALS)
@pytest.mark.parametrize("state", ["missing", "broken"])
def test_essentials_that_do_not_work(name: str, state: str) -> None:
    found = doctor.examine({**GOOD, name: {"name": name, "state": state, "error": "bad library"}})
    assert not found.ok
    assert finding(found, name).status == state
    assert works(found)["export"] == f"{name} cannot be imported"
    json.dumps(found.to_dict())


def test_nothing_is_known() -> None:
    found = doctor.examine({})
    assert not found.ok
    needless = {"doctor", "list", "bench report", "bench compare"}
    assert {name for name, reason in works(found).items() if not reason} == needless


def test_an_install_of_numpy_that_is_broken_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evovit_deploy.engines", None)
    assert finding(doctor.examine(GOOD), "backends").status == "broken"


def test_every_command_has_a_row() -> None:
    """A command that is added says what it needs; until then it is listed, and needs everything essential."""
    names = command_names(get_command(app))
    assert "bench" in names
    assert "package triton" in names
    assert set(names) <= set(NEEDS)
    ways = {name for name in NEEDS if name not in names}
    assert all(any(way.startswith(f"{name} ") for name in names) for way in ways)  # a way to call one of them
    found = doctor.examine({}, [*names, "brand new"])
    assert works(found)["brand new"].startswith("torch")


def test_every_extra_has_a_row_and_the_fix() -> None:
    found = doctor.examine({name: probe for name, probe in GOOD.items() if name in ESSENTIALS})
    assert found.ok
    for extra in extras():
        row = finding(found, f"extra {extra}")
        assert row.status == "missing"
        assert install_advice(extra) in row.value
    used = {extra for need in NEEDS.values() for extra in need.extras}
    assert used == set(extras()) - {"telemetry"}, (
        "telemetry only adds to bench; every other extra is why a command works"
    )
    for need in NEEDS.values():
        assert set(need.modules) <= {module for extra in need.extras for module in modules_of(extra)}


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("starlette", "serve", "serve"), ("grpc", "package triton", "serve"), ("ray", "predict --ray", "ray"),
        ("matplotlib", "bench report -o", "report"), ("uvicorn", "bench serve", "serve"),
    ],
)  # fmt: skip
def test_a_missing_package_is_the_reason(module: str, command: str, extra: str) -> None:
    found = doctor.examine({**GOOD, module: {"name": module, "state": "missing"}})
    assert found.ok
    assert works(found)[command] == f"without {modules_of(extra)[module]} (extra `{extra}`)"
    assert works(found)["export"] == ""


def test_one_tensorrt_is_enough() -> None:
    gone = {name: {"name": name, "state": "missing"} for name in ("tensorrt", "tensorrt_rtx")}
    for name in gone:
        assert works(doctor.examine({**GOOD, name: gone[name]}))["build"] == ""
    assert "extra `rtx`) and without tensorrt" in works(doctor.examine({**GOOD, **gone}))["build"]


def test_a_package_that_is_broken() -> None:
    found = doctor.examine({**GOOD, "grpc": {"name": "grpc", "state": "broken", "error": "ImportError: libfoo"}})
    assert finding(found, "extra serve").status == "broken"
    assert "grpcio: ImportError: libfoo" in finding(found, "extra serve").value


def test_a_probe_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no luck")

    for name in ("gpus", "cpu_model", "memory_bytes", "package_version"):
        monkeypatch.setattr(doctor, name, broken)
    found = doctor.examine(GOOD)
    assert finding(found, "GPU").value == "RuntimeError: no luck"
    assert finding(found, "CPU").status == "broken"


def test_modules_that_crash_hang_or_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its own process down, and the modules after it are still looked at."""
    sources = {
        "evovit_test_good": "__version__ = '3'; print('chatter')",
        "evovit_test_crash": "import os; os.abort()",
        "evovit_test_error": "raise ImportError('libfoo.so: cannot open')",
        "evovit_test_last": "",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.probe_imports((*sources, "evovit_test_absent"), ("evovit_test_gone",))
    assert {name: entry["state"] for name, entry in found.items()} == {
        "evovit_test_good": "ok", "evovit_test_crash": "broken", "evovit_test_error": "broken", "evovit_test_last": "ok",
        "evovit_test_absent": "missing", "evovit_test_gone": "missing",
    }  # fmt: skip
    assert found["evovit_test_good"]["version"] == "3"
    assert "ended with code" in found["evovit_test_crash"]["error"]
    assert "libfoo.so" in found["evovit_test_error"]["error"]


def test_a_module_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evovit_test_hang.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.probe_imports(("evovit_test_hang",), (), seconds=1)
    assert found["evovit_test_hang"]["state"] == "broken"
    assert "no answer in 1 s" in found["evovit_test_hang"]["error"]


def test_tiny_model_runs() -> None:
    from evovit_deploy.engines.ort.session import session

    assert session(doctor.tiny_model(), "cpu", 1).get_outputs()[0].name == "y"


def run(monkeypatch: pytest.MonkeyPatch, imports: dict[str, dict[str, Any]], *arguments: str) -> Any:
    monkeypatch.setattr(doctor, "probe_imports", lambda: imports)
    alone = typer.Typer()
    alone.command()(command)
    return CliRunner().invoke(alone, list(arguments), env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, GOOD)
    assert result.exit_code == 0
    assert "evovit bench (GPU)" in result.stdout
    assert "extra serve" in result.stdout
    assert "no driver" in result.stdout
    document = json.loads(run(monkeypatch, GOOD, "--json").stdout)
    assert (document["schema"], document["kind"], document["ok"]) == (1, "doctor", True)


def test_command_fails_when_the_essentials_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, {**GOOD, "timm": {"name": "timm", "state": "missing"}}, "--json")
    assert isinstance(result.exception, EngineError)
    assert result.exception.exit_code == 4
    assert "timm: not installed" in str(result.exception)
    assert json.loads(result.stdout)["ok"] is False


def test_this_machine() -> None:
    """The libraries that the tests themselves run on are found."""
    found = doctor.examine()
    assert finding(found, "onnx").status == "ok"
    assert works(found)["predict"] == ""

"""`evovit gpu-check` on the CPU, in place of a GPU: what runs, what is left out, and processes that die or hang."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evovit_deploy import ExportOptions, export_onnx, load_recipe, random_checkpoint
from evovit_deploy.bench.reading import read_records
from evovit_deploy.engines.registry import for_checkpoints
from evovit_deploy.errors import InputError
from evovit_deploy.export import export_baseline
from evovit_deploy.gpucheck import CheckOptions, CheckResult, runner
from evovit_deploy.gpucheck.jobs import CheckJob, jobs
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes.write import write_recipe
from tests import warm
from tests.export.conftest import TINY

ROOT = Path(__file__).resolve().parents[2]
Evovit = Callable[..., tuple[Any, str, str]]
JOB = CheckJob("check", "evo_deit_tiny_patch16_224", "onnxruntime", "cpu", "fp32", (1,), 0.1)
EVERYTHING = {name: {"state": "ok", "gpu": "a GPU"} for name in ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx")}


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    path = tmp_path / "micro.toml"
    write_recipe(path, TINY, "")
    return path


WORKER = """
from tests import exports, measuring
exports.install()
measuring.install()
import runpy
runpy.run_module("evovit_deploy.gpucheck.worker", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch, micro: Path, tmp_path: Path) -> None:
    """Let workers be forked from a Python that has everything imported, share exports, and measure shortly.

    The exports are made here already: the exporter loads for seconds in a new process.
    """
    model, plain = random_checkpoint(load_recipe(str(micro))), ExportOptions(prove=False)
    kept = ExportOptions(ModelOptions(outputs=("logits", "kept")), prove=False)
    export_onnx(model, tmp_path / "model.onnx", kept)
    export_baseline(model.recipe, tmp_path / "twin.onnx", plain, kind="twin")

    def popen(words: list[str], *, stdin: int, env: dict[str, str], **streams: Any) -> warm.Piped:
        assert words[1:3] == ["-m", "evovit_deploy.gpucheck.worker"]
        return warm.Piped(["-c", WORKER, *words[3:]], ROOT, env, stdin=stdin)

    monkeypatch.setattr(runner, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": popen}))


@pytest.mark.usefixtures("warm_workers")
def test_a_run_without_a_gpu(micro: Path, tmp_path: Path, evovit: Evovit) -> None:
    out = tmp_path / "found"
    words = ["gpu-check", "--device", "cpu", "--models", micro, "--backend", "onnxruntime,tensorrt"]
    code, stdout, stderr = evovit(*words, "--batch", "1", "--seconds", "0.05", "-o", out, "--json")
    assert code == 0, stderr
    document = json.loads(stdout)
    assert document == json.loads((out / "check.json").read_text())
    status = {(o["backend"], o["check"]): o["status"] for o in document["outcomes"]}
    assert status["onnxruntime", "parity"] == status["onnxruntime", "reload"] == "ok"
    assert status["onnxruntime", "streams"] == "skipped"
    assert "No" in document["skipped"]["tensorrt"] or "not" in document["skipped"]["tensorrt"]
    reports = read_records(out / "bench.jsonl")
    assert [report.subjects[0].backend for report in reports] == ["onnxruntime"]
    assert all(any(point.speedup for point in report.points) for report in reports)
    page = (out / "index.html").read_text()
    assert "evovit gpu-check" in page
    assert "kept sets 100.0% alike" in page
    assert evovit("bench", "report", out / "bench.jsonl")[0] == 0
    (out / "check.json").write_text("{}")
    code, _, stderr = evovit(*words, "-o", out)
    assert (code, "evovit did not write it" in stderr) == (1, True)


def test_without_a_gpu_it_says_how_to_try_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, evovit: Evovit) -> None:
    monkeypatch.setattr(runner, "gpus", list)
    code, _, stderr = evovit("gpu-check", "-o", tmp_path / "x")
    assert (code, "--device cpu" in stderr, list(tmp_path.glob("x*"))) == (4, True, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backends": ("tensort",)}, "Did you mean 'tensorrt'"),
        ({"models": ("evit.pth",)}, "takes recipes"),
        ({"minutes": 0.0}, "more than 0"),
        ({"seconds": float("nan")}, "more than 0"),
        ({"batches": (1, 1)}, "different numbers"),
        ({"models": ()}, "at least one recipe"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CheckOptions(**options)


def test_the_first_model_is_checked_and_measured_before_the_others() -> None:
    options = CheckOptions(models=("evo_deit_tiny_patch16_224", "evo_levit_256_224"), backends=("pytorch", "inductor"))
    found = [(job.what, job.model, job.backend) for job in jobs(options, options.backends)]
    assert found == [
        (what, model, backend)
        for what, model in (
            ("check", "evo_deit_tiny_patch16_224"),
            ("measure", "evo_deit_tiny_patch16_224"),
            ("check", "evo_levit_256_224"),
        )
        for backend in ("pytorch", "inductor")
    ]
    assert {job.precision for job in jobs(options, options.backends)} == {"fp16"}


def test_where_rtx_does_not_run_it_is_left_out_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.backends.gpus", lambda: [{"name": "a GPU"}])
    hopper = {**EVERYTHING, "torch": {"state": "ok", "gpu": "NVIDIA H100", "capability": "9.0"}}
    options = CheckOptions(backends=("tensorrt", "tensorrt-rtx"))
    here, left_out = for_checkpoints(hopper, options.device, options.backends)
    assert {job.backend for job in jobs(options, here)} == {"tensorrt"}
    assert "use tensorrt, inductor" in left_out["tensorrt-rtx"]


OPENED = """print('{"check": "open", "status": "ok", "value": ""}', flush=True); """


@pytest.mark.parametrize(
    ("program", "seconds", "status", "said"),
    [
        (OPENED + "import os; os.abort()", 30, "failed", "ended with code"),
        ("import sys; sys.exit('no such library')", 30, "failed", "no such library"),
        (OPENED + "import time; time.sleep(60)", 3, "skipped", "not done when the time was over"),
    ],
)
def test_a_process_that_dies_or_hangs_is_a_line_of_the_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, seconds: float, status: str, said: str
) -> None:
    stand_in = tmp_path / "python"
    script = tmp_path / "program.py"
    script.write_text(program)
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(stand_in))
    result = CheckResult(CheckOptions(device="cpu"), {}, {})
    runner.run_job(JOB, seconds, result)
    last = result.outcomes[-1]
    assert (last.check, last.status) == ("the rest", status)
    assert said in last.value
    assert [o.check for o in result.outcomes[:-1]] == (["open"] if "open" in program else [])


def test_a_worker_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "evovit_deploy.gpucheck.worker", json.dumps(dataclasses.asdict(JOB))]
    worker = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(timeout=120) == 1

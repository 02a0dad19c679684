"""The environment of a measurement, also where the system says little."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.machine import facts as env
from evovit_deploy.machine.facts import physical_cores


def test_cores_are_at_least_one_and_at_most_the_cpus() -> None:
    assert 1 <= physical_cores() <= len(env.available_cpus())


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "available_cpus", lambda: list(range(1000, 1016)))  # no such CPUs: each is a core
    monkeypatch.setattr(env, "cpu_quota", lambda: None)
    assert physical_cores() == 16
    monkeypatch.setattr(env, "cpu_quota", lambda: 2.5)
    assert physical_cores() == 3


def test_gpus_are_read_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "_output", lambda command: "NVIDIA X, 580.1, 81559 MiB\ngarbage")
    assert env.gpus() == [{"name": "NVIDIA X", "driver": "580.1", "memory": "81559 MiB"}]


@pytest.mark.parametrize("failure", [OSError("broken"), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_a_broken_nvidia_smi_is_no_gpu(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise failure

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", run)
    assert env.gpus() == []


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*args: Any, **options: Any) -> str:
        raise OSError("no such file")

    monkeypatch.setattr(Path, "read_text", unreadable)
    monkeypatch.setattr("os.getloadavg", unreadable)
    monkeypatch.setattr(env, "package_version", lambda name: None)
    found = env.environment(None)
    assert found["cpu"]
    assert found["load_average"] is None
    assert found["versions"] == {}


def test_the_version_is_that_of_the_package_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime has a distribution for the CPU and one for GPUs, and both may be installed, one over the other."""
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(__version__="9.9"))  # type: ignore[arg-type]
    assert env.package_version("onnxruntime") == "9.9"
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert env.package_version("onnxruntime") not in (None, "9.9")

"""The config file of Ray Serve: Ray's own schema reads it, and its arguments are those of the application."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.cluster.options import RayOptions
from evovit_deploy.errors import InputError, OutputError
from evovit_deploy.packages.ray_config import ray_config

from ..conftest import DIGITS


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["package", "ray", *map(str, words)])


def test_rays_schema_and_our_arguments(digits_model: Path, tmp_path: Path) -> None:
    words = [
        digits_model,
        "--labels",
        DIGITS / "labels.txt",
        "--folder",
        "/mnt/my models",
        "--replicas",
        "1-4",
        "--cpus",
        "2",
    ]
    words += [
        "--max-batch",
        "16",
        "--drain",
        "12",
        "--token-file",
        "/run/token",
        "--host",
        "0.0.0.0",
        "--name",
        "digits",
    ]
    document = json.loads(invoke(*words, "-o", tmp_path / "ray.yaml", "--json").stdout)
    assert document == {"model": "digits", "application": "digits", "files": [str(tmp_path / "ray.yaml")]}
    found = ServeDeploySchema.parse_obj(yaml.safe_load((tmp_path / "ray.yaml").read_text()))
    (application,) = found.applications
    assert (found.http_options.host, found.http_options.port) == ("0.0.0.0", 8000)
    assert (application.name, application.route_prefix) == ("digits", "/")
    assert RayOptions.from_dict(application.args) == RayOptions(
        models=("digits=/mnt/my models/digits.onnx",),
        labels="/mnt/my models/labels.txt",
        provider="cpu",
        max_batch=16,
        drain=12.0,
        token_file="/run/token",
        num_cpus=2.0,
        min_replicas=1,
        max_replicas=4,
    )
    module, _, name = application.import_path.partition(":")
    built = getattr(import_module(module), name)(application.args)
    assert type(built).__name__ == "Application"


def test_the_files_where_they_are_by_default(
    digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits_model.parent)
    assert invoke(digits_model.name, "-o", tmp_path / "ray.yaml").exit_code == 0
    (application,) = yaml.safe_load((tmp_path / "ray.yaml").read_text())["applications"]
    assert application["args"] == {"models": [f"digits={digits_model}"], "provider": "cpu", "num_replicas": 1}
    assert isinstance(invoke(digits_model, "-o", tmp_path / "ray.yaml").exception, OutputError)
    assert invoke(digits_model, "-o", tmp_path / "ray.yaml", "--force").exit_code == 0


def test_a_plan_asks_for_a_gpu(plan: Callable[..., Path], tmp_path: Path) -> None:
    path = plan()
    assert invoke(path, "-o", tmp_path / "ray.yaml").exit_code == 0
    (application,) = yaml.safe_load((tmp_path / "ray.yaml").read_text())["applications"]
    assert application["args"]["num_gpus"] == 1.0
    assert "provider" not in application["args"]
    assert "leaves it none" in str(invoke(path, "-o", tmp_path / "r.yaml", "--gpus", "0").exception)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--folder", "models"], "not an absolute path"),
        (["--token-file", "token"], "not an absolute path"),
        (["--folder", "/a\nb"], "control character"),
        (["--replicas", "4-1"], "give a range"),
        (["--replicas", "many"], "MIN-MAX"),
        (["--port", "70000"], "0 to 65535"),
        (["--model-name", "a b"], "not a model name"),
    ],
)
def test_refused_with_nothing_left(digits_model: Path, tmp_path: Path, words: list[str], text: str) -> None:
    result = invoke(digits_model, "-o", tmp_path / "ray.yaml", *words)
    assert isinstance(result.exception, InputError)
    assert text in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_in_python(tmp_path: Path) -> None:
    options = RayOptions(models=("a=/m/a.onnx", "a:7=/m/b.onnx"), fixed_batch=True, max_delay_ms=1.5)
    path = ray_config(options, tmp_path / "ray.yaml", port=9000)
    (application,) = yaml.safe_load(path.read_text())["applications"]
    assert RayOptions.from_dict(application["args"]) == options

"""The arguments of a Ray Serve application, without a cluster."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy.cli import app as cli
from evovit_deploy.cluster import app
from evovit_deploy.cluster.options import RayOptions
from evovit_deploy.errors import EvoVitError, InputError


def test_defaults_and_derived_limits() -> None:
    options = RayOptions.from_dict({"models": ["a=/x.onnx", "a=/y.onnx"], "max_batch": 4, "num_cpus": 2})
    assert [(source.name, source.version) for source in options.sources()] == [("a", "1"), ("a", "2")]
    assert (options.ongoing, options.autoscaled) == (8, False)
    settings = options.settings("secret")
    assert (settings.grpc_port, settings.threads, settings.token, settings.max_batch) == (None, 2, "secret", 4)
    assert settings.control is False


def test_text_is_read_as_serve_run_gives_it() -> None:
    arguments = {"models": "a=/x.onnx,/b.onnx", "num_replicas": "2", "num_cpus": "0.5", "fixed_batch": "true"}
    options = RayOptions.from_dict(arguments)
    assert options.models == ("a=/x.onnx", "/b.onnx")
    assert (options.num_replicas, options.num_cpus, options.fixed_batch) == (2, 0.5, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "models is missing"),
        ({"models": []}, "give a list"),
        ({"models": ["a=x", "a:1=y"]}, "given twice"),
        ({"models": ["x"], "replicas": 2}, "unknown arguments replicas; valid: models"),
        ({"models": ["x"], "route_prefix": "/v"}, "route_prefix stands beside args"),
        ({"models": ["x"], "max_queue": 1.5}, "whole number"),
        ({"models": ["x"], "max_queue": "many"}, "whole number"),
        ({"models": ["x"], "max_queue": 0}, "max_queue is 0"),
        ({"models": ["x"], "max_batch": 0}, "max_batch is 0"),
        ({"models": ["x"], "max_queue": True}, "whole number"),
        ({"models": ["x"], "max_delay_ms": -1}, "max_delay_ms"),
        ({"models": ["x"], "num_cpus": -1}, "num_cpus"),
        ({"models": ["x"], "min_replicas": 1}, "min_replicas and max_replicas"),
        ({"models": ["x"], "min_replicas": 3, "max_replicas": 2}, "give a range"),
        ({"models": ["x"], "min_replicas": 1, "max_replicas": 2, "num_replicas": 1}, "not both"),
        ({"models": ["x"], "target_ongoing_requests": 2}, "autoscaling"),
        ({"models": ["x"], "labels": 5}, "labels is 5"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        app(arguments)


def test_the_application_has_these_settings() -> None:
    built = app(
        {"models": ["/x.onnx"], "min_replicas": 1, "max_replicas": 4, "max_batch": 8, "num_gpus": 1, "max_queue": 9}
    )
    deployment = built._bound_deployment
    assert deployment.name == "evovit"
    assert deployment.max_ongoing_requests == 16
    assert deployment.max_queued_requests == 9
    assert deployment.ray_actor_options["num_gpus"] == 1
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 4)


def test_the_config_file_of_the_documentation() -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    page = (Path(__file__).resolve().parents[2] / "docs" / "production.md").read_text()
    [block] = [part for part in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if part.startswith("# ray")]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(block))
    [application] = schema.applications
    module, _, name = application.import_path.partition(":")
    built = getattr(importlib.import_module(module), name)(application.args)
    assert built._bound_deployment.max_ongoing_requests == 32


@pytest.mark.parametrize("module", ["evovit_deploy.cluster", "evovit_deploy.serve.ray"])
def test_config_files_find_the_application(module: str) -> None:
    assert importlib.import_module(module).app is app


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    (tmp_path / "x.png").touch()
    monkeypatch.setitem(sys.modules, "ray", None)
    for words in (["serve", "--ray", "--port", "0"], ["predict", "--ray"]):
        arguments = [
            words[0],
            tmp_path / "x.onnx",
            *([tmp_path / "x.png"] if words[0] == "predict" else []),
            *words[1:],
        ]
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert isinstance(result.exception, EvoVitError)
        assert result.exception.exit_code == 4
        assert "pip install -e '.[ray]' in a checkout, or pip install" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--replicas", "2"], "go with --ray"),
        (["--ray", "--replicas", "two"], "MIN-MAX"),
        (["--ray", "--replicas", "3-2"], "give a range"),
        (["--ray", "--allow-control"], "--allow-control does not go with --ray"),
        (["--ray", "--port", "0", "--ray-address", "auto"], "port 0 is for a local cluster"),
    ],
)
def test_wrong_use_of_serve(arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(cli, ["serve", "x.onnx", *arguments])
    assert isinstance(result.exception, EvoVitError)
    assert result.exception.exit_code == 2
    assert reason in str(result.exception)

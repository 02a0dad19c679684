"""The instrument for what the service costs, briefly, around engines that only wait; no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.loadtest.results import SpeedSettings
from tests import measuring


@pytest.mark.slow
def test_stand_ins_are_measured_and_recorded(tmp_path: Path, forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring.install(monkeypatch.setattr)
    brief: Any = SpeedSettings.__init__
    monkeypatch.setattr(SpeedSettings, "__init__", lambda self, **named: brief(self, **{"waits_ms": 10.0, **named}))
    record = tmp_path / "r.jsonl"
    command = [
        "bench",
        "serve",
        "--seconds",
        "0.1",
        "--clients",
        "4",
        "--max-batch",
        "4",
        "--record",
        str(record),
        "--json",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert json.loads(record.read_text())["overhead"] == document["overhead"]
    assert {one["protocol"] for one in document["overhead"]} == {"http", "grpc"}
    for one in document["overhead"]:
        assert one["direct_p50_ms"] >= 10  # what the stand-in waits
        assert one["low"] <= one["p50_ms"] <= one["high"]
    for one in document["throughput"]:
        assert 0 < one["mean_batch"] <= 4
        assert one["direct_images_per_second"] <= 4 / 0.01


def test_a_model_that_is_not_there() -> None:
    result = CliRunner().invoke(app, ["bench", "serve", "missing.onnx"])
    assert result.exit_code != 0

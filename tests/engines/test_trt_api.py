from __future__ import annotations

import pytest

from evovit_deploy.engines import registry
from evovit_deploy.engines.trt.api import Gpu, PlanLogger, load_api, pick_flavour
from evovit_deploy.errors import EngineError, InputError


def test_auto_means_full_tensorrt_only_where_it_can_build(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "NVIDIA L4", "8.9", 1)
    installed: set[str] = set()
    monkeypatch.setattr("evovit_deploy.engines.trt.api._installed", lambda flavour: flavour in installed)
    with pytest.raises(EngineError, match="neither TensorRT nor TensorRT-RTX is installed"):
        pick_flavour("auto", gpu)
    with pytest.raises(EngineError, match="TensorRT is not installed"):
        load_api("tensorrt")
    installed.add("tensorrt")
    assert pick_flavour("auto", gpu) == "tensorrt"
    with pytest.raises(EngineError, match="no usable GPU was found"):
        pick_flavour("auto", None)
    installed.add("tensorrt-rtx")
    assert pick_flavour("auto", None) == "tensorrt-rtx"
    assert pick_flavour("tensorrt", None) == "tensorrt"
    with pytest.raises(InputError, match="target 'cuda' is unknown"):
        pick_flavour("cuda", gpu)


def test_the_log_keeps_what_matters() -> None:
    log = PlanLogger()
    assert log.problem() == "no reason was given"
    log.keep(3, "Total Weights Memory: 123 bytes")
    log.keep(3, "Total Activation Memory: 45 bytes")
    log.keep(4, "Layers:\nName: a, LayerType: kgen")
    log.keep(4, "chatter")
    log.keep(2, "careful")
    log.keep(1, "[checkMacros.cpp::catchCudaError::250] no driver")
    log.keep(1, "the real reason.")
    assert log.memory == {"weights": 123, "activation": 45}
    assert log.plan.endswith("LayerType: kgen")
    assert log.warnings == ["careful"]
    assert log.problem() == "the real reason"


@pytest.mark.parametrize(
    ("capability", "runs"), [("9.0", False), ("10.0", False), ("8.7", False), ("8.9", True), ("12.1", True)]
)
def test_where_rtx_does_not_run_its_row_says_what_does(
    monkeypatch: pytest.MonkeyPatch, capability: str, runs: bool
) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.backends.gpus", lambda: [{"name": "a GPU"}])
    probes: dict[str, dict[str, str]] = {name: {"state": "ok"} for name in ("tensorrt", "tensorrt_rtx")}
    probes["torch"] = {"state": "ok", "gpu": "a GPU", "capability": capability}
    rows = {row.name: row.here(probes) for row in registry.backends() if row.built}
    assert rows["tensorrt"] == (("cuda",), "")
    usable, why = rows["tensorrt-rtx"]
    assert usable == (("cuda",) if runs else ())
    assert runs or f"does not run on a GPU ({capability}); use tensorrt, inductor" in why

"""The commands that run models, on TensorRT engines: refused without a GPU; compared by `verify` where they run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.engines import OrtEngine
from evovit_deploy.engines.trt.api import find_gpu
from tests.engines.test_engine_manifest import make_document, make_plan
from tests.trt_models import SIZE, tiny_onnx

Evovit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def commands(engine: Path, image: Path) -> dict[str, tuple[str | Path, ...]]:
    return {
        "verify, second": ("verify", tiny_onnx("fp32"), engine),
        "verify, first": ("verify", engine, tiny_onnx("fp32"), "--provider", "cpu"),
        "predict": ("predict", engine, image),
        "bench": ("bench", engine),
        "bench --engine": ("bench", tiny_onnx("fp32"), "--engine", engine),
    }


@pytest.mark.parametrize("manifest", [True, False])
def test_without_a_gpu(evovit: Evovit, tmp_path: Path, image: Path, manifest: bool) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    from evovit_deploy.engines.trt.api import load_api

    version = load_api("tensorrt-rtx").version
    engine = make_plan(tmp_path, version=tuple(int(part) for part in version.split(".")))
    if manifest:
        make_document(engine, version=version)
    for name, command in commands(engine, image).items():
        code, out, err = evovit(*command)
        assert (code, out) == (4, ""), name
        assert "needs an NVIDIA GPU with a working driver" in err, name
        assert "ONNX file it was built from" in err, name


def test_without_tensorrt(evovit: Evovit, tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.api._installed", lambda flavour: False)
    for name, command in commands(make_plan(tmp_path), image).items():
        code, _, err = evovit(*command)
        assert code == 4, name
        assert "TensorRT-RTX is not installed. Install the extra `rtx`: pip install -e '.[rtx]'" in err, name


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_plan_is_refused_before_tensorrt_sees_it(
    evovit: Evovit, tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.tensorrt.load_plan", lambda *a: pytest.fail("TensorRT was given it"))
    engine = make_plan(tmp_path)
    if damage == "other":
        make_document(engine, plan={"sha256": "0" * 64, "bytes": 100})
    else:
        engine.write_bytes(engine.read_bytes()[:60] if damage == "cut" else b"no plan at all, whatever its name is")
    for name, command in {**commands(engine, image), "inspect": ("inspect", engine)}.items():
        code, out, err = evovit(*command)
        assert (code, out) == (4 if damage == "other" else 1, ""), name
        assert "evovit build" in err, name


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_a_backend_that_cannot_run_it(evovit: Evovit, tmp_path: Path, image: Path, backend: str) -> None:
    engine = make_plan(tmp_path)
    for command in (("predict", engine, image), ("bench", engine)):
        code, _, err = evovit(*command, "--backend", backend)
        assert code == 2
        assert backend in err
        assert "Leave" in err


def test_verify_compares_an_engine_as_any_other(
    evovit: Evovit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that runs the ONNX file, since the plan cannot run here."""
    engine = make_plan(tmp_path)

    class StandIn(OrtEngine):
        offset = 0.0

        def __init__(self, path: Path) -> None:
            assert path == engine
            super().__init__(tiny_onnx("fp16", outputs="logits,kept"), provider="cpu")

        def run(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
            found = super().run(images)
            return {**found, "logits": found["logits"] + self.offset}

    monkeypatch.setattr("evovit_deploy.engines.trt.tensorrt.TrtEngine", StandIn)
    reference = tiny_onnx("fp32", outputs="logits,kept")
    code, out, err = evovit("verify", reference, engine, "--provider", "cpu", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["model"] == str(engine)
    assert report["passed"] is True
    assert report["jaccard"]["kept_1"] > 0.9
    monkeypatch.setattr(StandIn, "offset", 1.0)
    code, out, err = evovit("verify", reference, engine, "--provider", "cpu")
    assert code == 3
    assert "FAILED" in out
    assert "not the same function" in err

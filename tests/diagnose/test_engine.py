"""`diagnose` of an engine: its own outputs are judged, and its layers are those of what it was built from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evovit_deploy import ExportOptions, ModelOptions, export_onnx
from evovit_deploy.diagnose import diagnose
from evovit_deploy.engines.onnxruntime import OrtEngine
from evovit_deploy.engines.registry import Backend, register, unregister
from evovit_deploy.errors import InputError, ModelFileError

from .faults import ALL, healthy

pytestmark = pytest.mark.usefixtures("weights_into_one_export")
HALF = ExportOptions(ModelOptions("fp16", outputs=("logits", "kept")), prove=False)


@pytest.fixture
def half_engines():
    """Engines of FP16, called ``.half``; inside they are ONNX files."""

    def open_half(path, *, provider, threads):
        return OrtEngine(path, provider="cpu")

    register(Backend("half", "for tests", "engine", "engines of tests", (".half",), open_half, "onnxruntime"))
    yield
    unregister("half")


@pytest.mark.usefixtures("half_engines")
def test_layers_are_those_of_what_it_was_built_from(tmp_path):
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    path = export_onnx(healthy("deit"), tmp_path / "model.onnx", HALF).path
    path.with_suffix(".half").write_bytes(path.read_bytes())
    for against in (None, path, healthy("deit")):
        found = diagnose(path.with_suffix(".half"), against=against, images=images)
        assert (found.passed, found.culprits, found.precision) == (True, (), "fp16")
        assert "blocks.1/fc1/MatMul" in {layer.node for layer in found.layers}
        assert 0 < found.parity.error < 0.05
        assert "(onnxruntime)" in found.model
    fault = next(fault for fault in ALL if str(fault) == "deit-mlp-1").checkpoint()
    state = {**healthy("deit").state, "head.weight": -healthy("deit").state["head.weight"]}
    for against, reason in ((fault, "overflow"), (dataclasses.replace(fault, state=state), "engine")):
        found = diagnose(path.with_suffix(".half"), against=against, images=images)
        assert (found.passed, found.culprits[0].reason) == (False, reason)


def test_an_engine_in_fp32_has_outputs_to_compare_and_no_layers(inductor_package):
    steps = []
    against = inductor_package.with_suffix(".pth")
    found = diagnose(inductor_package, against=against, step=lambda text, done, total: steps.append(text))
    assert steps == ["exporting in fp32", "running the engine"]  # half precision is looked at by nobody
    assert (found.passed, found.precision, found.layers, found.culprits) == (True, "fp32", (), ())
    assert found.parity.jaccard == {"kept_1": 1.0, "kept_2": 1.0}
    with pytest.raises(InputError, match=r"tiny\.pt2 is an engine.*--against"):
        diagnose(inductor_package)
    with pytest.raises(ModelFileError, match=r"no\.pth"):
        diagnose(inductor_package, against="no.pth")

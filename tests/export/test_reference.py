"""Exported files in ONNX Runtime against the authors' model: schedules, patterns, folding, precisions, batch sizes."""

import numpy as np
import pytest

from evovit_deploy import Engine, ExportOptions, export_onnx
from evovit_deploy.models.evo_deit import ModelOptions
from evovit_deploy.models.evolution import PATTERNS

from .conftest import CASES

OUTPUTS = ("logits", "kept")


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("selection", sorted(PATTERNS))
@pytest.mark.parametrize("schedule", ["stage", "layer"])
@pytest.mark.parametrize("name", CASES)
def test_fp32(load_case, tmp_path, name, schedule, selection, fold):
    checkpoint, data = load_case(name, schedule)
    options = ExportOptions(ModelOptions(selection=selection, outputs=OUTPUTS, fold=fold), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    expected = data["logits" if schedule == "stage" else "logits_layerwise"]
    with Engine.open(path, provider="cpu") as engine:
        got = engine(data["images"])  # n, and above the two images the export was traced with
        assert len(data["images"]) > 2
        alone = engine(data["images"][:1])
        many = engine(np.concatenate([data["images"]] * 3))
    assert np.abs(got["logits"] - expected).max() <= 1e-5
    assert np.abs(alone["logits"] - expected[:1]).max() <= 1e-5
    assert np.abs(many["logits"] - np.concatenate([expected] * 3)).max() <= 1e-5
    if schedule == "stage":
        for stage in (1, 2):
            assert np.array_equal(got[f"kept_{stage}"], data[f"stage{stage}_kept"])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("schedule", ["stage", "layer"])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_keeps_the_top_class(load_case, tmp_path, name, schedule, precision):
    from evovit_deploy.engines import OrtEngine

    checkpoint, data = load_case(name, schedule)
    options = ExportOptions(ModelOptions(precision, outputs=OUTPUTS), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    with OrtEngine(path, provider="cpu", emulate=True) as engine:
        got = engine(data["images"])
    expected = data["logits" if schedule == "stage" else "logits_layerwise"]
    assert np.array_equal(got["logits"].argmax(1), expected.argmax(1))

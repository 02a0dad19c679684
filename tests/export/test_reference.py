"""Exported files in ONNX Runtime against the authors' model: schedules, patterns, folding, precisions, batch sizes."""

import numpy as np
import pytest

from evovit_deploy import Engine, ExportOptions, export_onnx
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions

from .conftest import CASES

OUTPUTS = ("logits", "kept")
SCHEDULES = ("stage", "layer")
# An orthogonal array: every pair of two settings occurs. All 32 combinations run in PyTorch (tests/models/test_vit.py).
COMBINATIONS = [
    (list(CASES)[n], SCHEDULES[n ^ (p & 1)], selection, bool(n ^ (p >> 1)))
    for p, selection in enumerate(sorted(PATTERNS))
    for n in (0, 1)
]


def test_every_pair_of_settings_occurs():
    columns = list(zip(*COMBINATIONS, strict=True))
    for i, first in enumerate(columns):
        for second in columns[:i]:
            assert len(set(zip(first, second, strict=True))) == len(set(first)) * len(set(second))


@pytest.mark.parametrize(("name", "schedule", "selection", "fold"), COMBINATIONS)
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
@pytest.mark.parametrize("schedule", SCHEDULES)
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

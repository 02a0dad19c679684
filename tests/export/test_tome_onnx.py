"""Merged tokens in ONNX Runtime: the authors' outputs, and that an export is proven and held against its checkpoint."""

import dataclasses

import numpy as np
import pytest

from evovit_deploy import Engine
from evovit_deploy.engines.pytorch import TorchEngine
from evovit_deploy.export import ExportOptions, export_onnx, verify
from evovit_deploy.export.proof import run_module, same_kept
from evovit_deploy.models.groups import group_overlap, merge_distance
from evovit_deploy.models.options import ModelOptions
from tests.modules import module_of
from tests.timm_models import images_for, merging_of, timm_model

FAMILY = "vit_small_patch14_reg4_dinov2 avg"
OUTPUTS = ("logits", "sources", "sizes")


def test_reference(tome_reference, tmp_path):
    """From end to end with another r in every block, unfolded; all of the authors' in PyTorch: tests/models/test_tome.py."""
    checkpoint, data = tome_reference("tome_micro_decreasing", (4.0, -1.0), "cls")
    options = ExportOptions(ModelOptions(outputs=OUTPUTS, fold=False), prove=False)
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    with Engine.open(path, provider="cpu") as engine:
        for some in (slice(0, 1), slice(None)):
            got = engine(data["images"][some])
            assert np.abs(got["logits"] - data["logits"][some]).max() <= 1e-5
            assert np.array_equal(got["sizes"], data["final_sizes"][some])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_is_proven_and_verified(tmp_path, precision):
    checkpoint = merging_of(FAMILY, (4, 0, 4))
    options = ExportOptions(ModelOptions(precision, image_input="uint8", outputs=OUTPUTS))
    result = export_onnx(checkpoint, tmp_path / "model.onnx", options)
    assert result.parity is not None
    assert result.parity.passed
    assert list(result.parity.jaccard) == list(result.parity.cut) == ["sources_1", "sources_2"]
    shown = [gate.name for gate in result.parity.gates if gate.name.startswith("sources")]
    assert shown == ["sources_2", "sources_1_cut"] or precision == "fp16"
    plain = ModelOptions(image_input="uint8", selection="onehot", outputs=("logits", "sources"), fold=False, trim=False)
    with TorchEngine.from_checkpoint(checkpoint, plain) as reference, Engine.open(result.path) as engine:
        report = verify(reference, engine)
        assert report.passed
        other = TorchEngine.from_checkpoint(
            dataclasses.replace(checkpoint, recipe=merging_of(FAMILY, (4, 0, 5)).recipe), plain
        )
        with other:
            assert not verify(other, engine).passed, "another r is another function"


def test_a_merge_of_the_other_model_is_followed():
    """With the reference merging as the other model did, what is left is rounding."""
    checkpoint = merging_of(FAMILY, (4, 4, 0, 4))
    module = module_of(checkpoint, ModelOptions(outputs=OUTPUTS))
    images = images_for(timm_model(FAMILY)).numpy()
    expected, scores = run_module(module, images)
    assert [scores[f"sources_{n}"].shape[1:] for n in (1, 2, 3)] == [(18, 18), (16, 16), (14, 14)]
    decide = module.decide
    module.decide = lambda given, r: decide(-given, r)  # merges what is least alike
    got, _ = run_module(module, images)
    del module.decide
    assert np.abs(got["logits"] - expected["logits"]).max() > 1e-2
    settled = same_kept(module, images, expected, got)
    assert np.abs(got["logits"] - settled["logits"]).max() <= 1e-6
    assert np.array_equal(settled["sizes"], got["sizes"])


def test_how_near_a_tie():
    """Tokens 2, 4, 6 are A, tokens 1, 3, 5 are B; two of A are merged, so 0.65 is the cut."""
    scores = np.array([[0.9, 0.1, 0.0], [0.7, 0.69, 0.0], [0.6, 0.2, 0.0]])
    mine = np.array([2, 2, 3, 2, 4, 1])  # 2 and 4 into 1
    assert merge_distance(scores, None, mine, mine) == 0
    elsewhere = np.array([2, 2, 3, 3, 4, 1])  # 4 into 3
    assert merge_distance(scores, None, mine, elsewhere) == pytest.approx(0.01 / 0.65)
    another = np.array([2, 2, 3, 1, 4, 2])  # 6 in place of 4
    assert merge_distance(scores, None, mine, another) == pytest.approx(0.05 / 0.65)
    later = np.array([1, 1, 2, 3, 4, 5, 6])  # the first two patches were merged before
    assert merge_distance(scores, later, mine[later - 1], another[later - 1]) == pytest.approx(0.05 / 0.65)


def test_how_alike_groups_are():
    a = np.array([0, 0, 1])
    assert group_overlap(a, a + 5) == 1, "the number of a token does not matter"
    assert group_overlap(a, np.array([0, 1, 1])) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)

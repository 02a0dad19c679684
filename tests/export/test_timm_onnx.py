"""Exports of timm's families in ONNX Runtime: timm at keep ratio 1, evolution by hand below it, FP16 within its tolerance."""

import numpy as np
import pytest
import torch

from evovit_deploy import Engine
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution
from tests.timm_models import FAMILIES, checkpoint_of, evolved, images_for, timm_model

# What a family has of its own is before the blocks, in each, or after them; selecting twice is in test_features.py.
ALL = Evolution((1.0,) * 2, (1.0,) * 2, stage_starts=())  # a first and a last block
HALF = Evolution((1.0, 0.5), (1.0, 0.5), stage_starts=(1,))
LIKE_ANOTHER = (
    *(family for family in FAMILIES if "headless" in family),
    "vit_base_patch32_clip_224",
    "vit_small_patch14_reg4_dinov2 avg",
)
SOME = ["deit3_small_patch16_224", "vit_small_patch16_224 avg", "vit_small_patch14_reg4_dinov2"]


def outputs(checkpoint, path, images, precision="fp32"):
    options = ExportOptions(ModelOptions(precision, outputs=("logits", "kept")))
    result = export_onnx(checkpoint, path, options)
    assert result.parity is not None
    assert result.parity.passed
    with Engine.open(path, provider="cpu") as engine:
        return engine(images.numpy())


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in LIKE_ANOTHER])
def test_keep_ratio_1_is_timm(family, tmp_path):
    model = timm_model(family, depth=2)
    images = images_for(model)
    with torch.inference_mode():
        expected = model(images).numpy()
    got = outputs(checkpoint_of(family, ALL), tmp_path / "m.onnx", images)
    assert list(got) == ["logits"]
    assert np.abs(got["logits"] - expected).max() <= 1e-5


@pytest.mark.parametrize("family", SOME)
def test_below_1_is_evolution_by_hand(family, tmp_path):
    model = timm_model(family, depth=2)
    images = images_for(model)
    expected, kept = evolved(model, images, HALF)
    got = outputs(checkpoint_of(family, HALF), tmp_path / "m.onnx", images)
    assert np.abs(got["logits"] - expected.numpy()).max() <= 1e-5
    assert got["kept_1"].tolist() == [image[0] for image in kept]


@pytest.mark.parametrize("family", SOME)
def test_fp16(family, tmp_path):
    model = timm_model(family, depth=2)
    images = images_for(model)
    expected, _ = evolved(model, images, HALF)
    got = outputs(checkpoint_of(family, HALF), tmp_path / "m.onnx", images, "fp16")
    scale = max(1.0, float(expected.abs().max()))
    assert np.abs(got["logits"] - expected.numpy()).max() <= 0.05 * scale

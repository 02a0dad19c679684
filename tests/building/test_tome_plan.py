"""Merged tokens as a TensorRT-RTX plan: the bias row leaves every attention fused; kernels as in docs/methods.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.checkpoint import random_checkpoint, timm_recipe
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from tests.timm_models import merging_of

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
BATCHES = BuildOptions(target="tensorrt-rtx", min_batch=1, opt_batch=8, max_batch=64, require_fused_attention=True)
FP16 = ExportOptions(ModelOptions("fp16"), prove=False)


def test_three_blocks(tmp_path: Path) -> None:
    path = export_onnx(merging_of("vit_small_patch14_reg4_dinov2", (4, 0, 4)), tmp_path / "model.onnx", FP16).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions, report.unfused) == (3, 3, ())
    assert report.precisions["fp16"] > report.precisions["fp32"]
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    assert report.kernels == 39


@pytest.mark.whole
def test_kernels_are_the_documented_ones(tmp_path: Path) -> None:
    recipe = timm_recipe("vit_small_patch16_224", method="tome")
    assert recipe.evolution.r == (13,) * 12  # type: ignore[attr-defined]
    path = export_onnx(random_checkpoint(recipe), tmp_path / "model.onnx", FP16).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions) == (12, 12)
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    found = re.search(r"(\d+) kernels for `vit_small_patch16_224`", DOCS.read_text(encoding="utf-8"))
    assert found
    assert report.kernels == int(found[1])

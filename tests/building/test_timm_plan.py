"""ViTs of timm as TensorRT-RTX plans: every attention fused; kernels as in docs/timm.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.checkpoint import random_checkpoint, timm_recipe
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.options import ModelOptions
from tests.timm_models import checkpoint_of

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "timm.md"
BATCHES = BuildOptions(target="tensorrt-rtx", min_batch=1, opt_batch=8, max_batch=64, require_fused_attention=True)
FP16 = ExportOptions(ModelOptions("fp16"), prove=False)
KINDS = ("evo", "twin", "stock")


@pytest.mark.parametrize(
    "family", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_224 avg"]
)
def test_every_attention_of_a_small_model_is_fused(family: str, tmp_path: Path) -> None:
    path = export_onnx(checkpoint_of(family), tmp_path / "model.onnx", FP16).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions, report.unfused) == (4, 4, ())
    assert report.precisions["fp16"] > report.kernels / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2",
    ],
)
def test_plan_is_the_documented_one(name: str, kind: str, tmp_path: Path) -> None:
    row = re.search(rf"^\| `{name}` \|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, name
    documented = re.findall(r"(\d+) \((\d+)/(\d+)\)", row[1])[KINDS.index(kind)]
    checkpoint = random_checkpoint(timm_recipe(name, image_size=224))
    path = tmp_path / "model.onnx"
    if kind == "evo":
        export_onnx(checkpoint, path, FP16)
    else:
        export_baseline(checkpoint.recipe, path, FP16, kind=kind, weights=checkpoint)  # type: ignore[arg-type]
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (str(report.fused), str(report.attentions)) == documented[1:]
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    assert str(report.kernels) == documented[0]

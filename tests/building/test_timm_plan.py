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
from evovit_deploy.models.vanilla import vanilla_recipe
from tests.timm_models import checkpoint_of

from .test_kernel_counts import DEPTH, STOCK, TWIN

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


LIKE_DEIT = "vit_small_patch16_224"
NAMES = [
    LIKE_DEIT,
    "deit3_small_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
]


def documented(name: str, kind: str) -> tuple[int, int, int]:
    """(kernels, fused, attentions) of docs/timm.md."""
    row = re.search(rf"^\| `{name}` \|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, name
    kernels, fused, attentions = map(int, re.findall(r"(\d+) \((\d+)/(\d+)\)", row[1])[KINDS.index(kind)])
    return kernels, fused, attentions


def counted(name: str, kind: str, path: Path) -> tuple[int, int, int]:
    """(kernels, fused, attentions) of the plan."""
    checkpoint = random_checkpoint(timm_recipe(name, image_size=224))
    if kind == "evo":
        export_onnx(checkpoint, path, FP16)
    else:
        export_baseline(checkpoint.recipe, path, FP16, kind=kind, weights=checkpoint)  # type: ignore[arg-type]
    report = build_engine(path, options=BATCHES, prove=False).report
    return report.kernels, report.fused, report.attentions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMES for kind in KINDS if name != LIKE_DEIT or kind == "evo"]
)
def test_plan_is_the_documented_one(name: str, kind: str, tmp_path: Path) -> None:
    found, expected = counted(name, kind, tmp_path / "model.onnx"), documented(name, kind)
    assert found[1:] == expected[1:]
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    assert found[0] == expected[0]


def test_an_original_that_is_a_deit_is_counted_as_one() -> None:
    """Its twin and stock plans are those of DeiT-S, which tests/building/test_kernel_counts.py builds."""
    a, b = (vanilla_recipe(timm_recipe(name)).structure for name in (LIKE_DEIT, "deit_small_patch16_224"))
    assert a == b
    assert documented(LIKE_DEIT, "twin") == (TWIN, DEPTH, DEPTH)
    assert documented(LIKE_DEIT, "stock") == (STOCK, DEPTH, DEPTH)

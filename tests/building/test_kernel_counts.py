"""Plans of the published sizes: every attention fused, and how many kernels. TensorRT-RTX plans are the same everywhere."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.building.plan import PlanReport
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Recipe, load_recipe
from tests.published import EVO_DEIT

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.skipif(
    not version("tensorrt-rtx").startswith("1.7.1."), reason="kernels were counted with tensorrt-rtx 1.7.1"
)
DEPTH, STOCK, TWIN, EVO = 12, 126, 103, 113
FP16 = ExportOptions(ModelOptions("fp16"), prove=False)
BATCHES = BuildOptions(target="tensorrt-rtx", min_batch=1, opt_batch=8, max_batch=64)


def plan_of(recipe: Recipe, folder: Path, kind: str) -> PlanReport:
    path = folder / "model.onnx"
    if kind == "evo":
        export_onnx(random_checkpoint(recipe), path, FP16)
    else:
        export_baseline(recipe, path, FP16, kind=kind)  # type: ignore[arg-type]
    return build_engine(path, folder / "model.engine", BATCHES, prove=False).report


@pytest.mark.parametrize("name", EVO_DEIT)
def test_every_attention_is_fused_and_ten_kernels_more_than_the_twin(name: str, tmp_path: Path) -> None:
    report = plan_of(load_recipe(name), tmp_path, "evo")
    assert (report.fused, report.attentions, report.unfused) == (DEPTH, DEPTH, ())
    assert report.kernels == EVO < STOCK


@pytest.mark.parametrize(("kind", "kernels"), [("twin", TWIN), ("stock", STOCK)])
def test_kernels_of_the_vanilla_baselines(kind: str, kernels: int, tmp_path: Path) -> None:
    report = plan_of(load_recipe("evo_deit_small_patch16_224"), tmp_path, kind)
    assert (report.fused, report.attentions, report.kernels) == (DEPTH, DEPTH, kernels)

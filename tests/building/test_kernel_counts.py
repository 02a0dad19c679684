"""Plans of the published sizes: every attention fused, and how many kernels. TensorRT-RTX plans are the same everywhere."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.building.plan import PlanReport
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.recipes import Recipe, load_recipe
from tests.published import EVO_DEIT

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytestmark = pytest.mark.skipif(
    not version("tensorrt-rtx").startswith("1.7.1."), reason="kernels were counted with tensorrt-rtx 1.7.1"
)
SMALL = "evo_deit_small_patch16_224"
DEPTH, STOCK, TWIN, EVO = 12, 126, 103, 113
# Of the other sizes in three blocks, where the first and the last weigh more.
EVO_OF_THREE = {
    "evo_deit_base_patch16_224": 43,
    "evo_deit_base_patch16_384": 43,
    "evo_deit_small_patch16_384": 45,
    "evo_deit_tiny_patch16_224": 41,
}
FP16 = ExportOptions(ModelOptions("fp16"), prove=False)
BATCHES = BuildOptions(target="tensorrt-rtx", min_batch=1, opt_batch=8, max_batch=64)


def plan_of(recipe: Recipe, folder: Path, kind: str) -> PlanReport:
    path = folder / "model.onnx"
    if kind == "evo":
        export_onnx(random_checkpoint(recipe), path, FP16)
    else:
        export_baseline(recipe, path, FP16, kind=kind)  # type: ignore[arg-type]
    return build_engine(path, folder / "model.engine", BATCHES, prove=False).report


def cut(recipe: Recipe, depth: int) -> Recipe:
    """The recipe with fewer blocks, which select where they would in proportion."""
    structure = dataclasses.replace(recipe.structure, depth=depth)  # type: ignore[type-var]
    return dataclasses.replace(recipe, structure=structure, evolution=scaled_evolution(depth))


@pytest.mark.parametrize(
    "name", [name if name == SMALL else pytest.param(name, marks=pytest.mark.whole) for name in EVO_DEIT]
)
def test_every_attention_is_fused_and_ten_kernels_more_than_the_twin(name: str, tmp_path: Path) -> None:
    """In full in one size; in fewer blocks in the others, below."""
    report = plan_of(load_recipe(name), tmp_path, "evo")
    assert (report.fused, report.attentions, report.unfused) == (DEPTH, DEPTH, ())
    assert report.kernels == EVO < STOCK


# A small model of 384 pixels and a base one of 224 show what the size of images and of tokens changes.
TWICE = "evo_deit_base_patch16_384"


@pytest.mark.parametrize(
    ("name", "kernels"),
    [pytest.param(*row, marks=pytest.mark.whole) if row[0] == TWICE else row for row in EVO_OF_THREE.items()],
)
def test_three_blocks_of_the_other_sizes(name: str, kernels: int, tmp_path: Path) -> None:
    report = plan_of(cut(load_recipe(name), 3), tmp_path, "evo")
    assert (report.fused, report.attentions, report.unfused) == (3, 3, ())
    assert report.kernels == kernels


def test_every_size_is_built() -> None:
    assert {SMALL, *EVO_OF_THREE} == set(EVO_DEIT)


@pytest.mark.parametrize("depth", [3, pytest.param(DEPTH, marks=pytest.mark.whole)])
def test_a_block_of_the_stock_model_is_ten_kernels(depth: int, tmp_path: Path) -> None:
    report = plan_of(cut(load_recipe(SMALL), depth), tmp_path, "stock")
    assert (report.fused, report.attentions) == (depth, depth)
    assert report.kernels == STOCK - 10 * (DEPTH - depth)


def test_kernels_of_the_twin(tmp_path: Path) -> None:
    report = plan_of(load_recipe(SMALL), tmp_path, "twin")
    assert (report.fused, report.attentions, report.kernels) == (DEPTH, DEPTH, TWIN)

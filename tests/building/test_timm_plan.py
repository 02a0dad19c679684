"""ViTs of timm as TensorRT-RTX plans: every attention fused; kernels as in docs/timm.md."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from evovit_deploy.building.build import build_engine
from evovit_deploy.checkpoint import Checkpoint, random_checkpoint, timm_recipe
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vanilla import vanilla_recipe
from evovit_deploy.models.vit import timm_vit
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.models.vit.timm_vit import timm_options
from evovit_deploy.recipes import Recipe, load_recipe
from tests.models.test_evit import FEW
from tests.models.test_evit import small as evit
from tests.timm_models import checkpoint_of

from .test_kernel_counts import DEPTH, STOCK, TWIN

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "timm.md"
BATCHES = BuildOptions(target="tensorrt-rtx", min_batch=1, opt_batch=8, max_batch=64, require_fused_attention=True)
FP16 = ExportOptions(ModelOptions("fp16"), prove=False)
KINDS = ("evo", "twin", "stock")


def few(family: str) -> Checkpoint:
    """A small model of three blocks, of which the last two keep half of their patches, each on its own choice."""
    return checkpoint_of(family, scaled_evolution(3))


def test_tokens_as_outputs_leave_attention_fused(tmp_path: Path) -> None:
    outputs = ("embedding", "patch_tokens", "block_1", "norm_block_2")
    options = ExportOptions(ModelOptions("fp16", outputs=outputs), prove=False)
    path = export_onnx(few("vit_small_patch14_reg4_dinov2"), tmp_path / "model.onnx", options).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions, report.unfused) == (3, 3, ())


def test_every_attention_of_a_small_evit_is_fused(tmp_path: Path) -> None:
    path = export_onnx(evit("deit_small_patch16_224", FEW, 3), tmp_path / "model.onnx", FP16).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions, report.unfused) == (3, 3, ())
    assert report.precisions["fp16"] > report.kernels / 2


@pytest.mark.whole
@pytest.mark.parametrize("selection", PATTERNS)
def test_the_plan_of_an_evit_is_the_documented_one(selection: str, tmp_path: Path) -> None:
    options = ExportOptions(ModelOptions("fp16", selection=selection), prove=False)
    checkpoint = random_checkpoint(load_recipe("evit_deit_small_patch16_224"))
    path = export_onnx(checkpoint, tmp_path / "model.onnx", options).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions) == (DEPTH, DEPTH)
    assert report.kernels <= 125
    text = (DOCS.parent / "methods.md").read_text(encoding="utf-8")
    found = re.search(r"^(\| `sort` .*)\n.*\n(\| [0-9].*)$", text, re.MULTILINE)
    assert found
    names, counts = ([cell.strip(" `") for cell in row.split("|")[1:-1]] for row in found.groups())
    if trt.__version__.startswith("1.7."):
        assert report.kernels == int(counts[names.index(selection)])


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


def counted(recipe: Recipe, kind: str, path: Path) -> tuple[int, int, int]:
    """(kernels, fused, attentions) of the plan."""
    checkpoint = random_checkpoint(recipe)
    if kind == "evo":
        export_onnx(checkpoint, path, FP16)
    else:
        export_baseline(recipe, path, FP16, kind=kind, weights=checkpoint)  # type: ignore[arg-type]
    report = build_engine(path, options=BATCHES, prove=False).report
    assert report.precisions["fp16"] > report.kernels / 2
    return report.kernels, report.fused, report.attentions


def check(found: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert found[1:] == expected[1:]
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    assert found[0] == expected[0]


WHOLE = [(name, kind) for name in NAMES for kind in KINDS if name != LIKE_DEIT or kind == "evo"]


@pytest.mark.whole
@pytest.mark.parametrize(("name", "kind"), WHOLE)
def test_plan_is_the_documented_one(name: str, kind: str, tmp_path: Path) -> None:
    check(counted(timm_recipe(name, image_size=224), kind, tmp_path / "model.onnx"), documented(name, kind))


# Kernels in a few blocks, of what is no DeiT's; tests/building/test_kernel_counts.py builds a DeiT in full. It takes three to
# select twice; where nothing is selected the second is like all after it.
DEPTHS = {"evo": 3, "twin": 2, "stock": 2}
IN_FEW_BLOCKS = [
    (LIKE_DEIT, "evo", 36),
    ("deit3_small_patch16_224", "evo", 36),
    ("deit3_small_patch16_224", "stock", 31),
    ("vit_small_patch14_dinov2", "evo", 35),
    ("vit_small_patch14_dinov2", "stock", 25),
    ("vit_small_patch14_reg4_dinov2", "evo", 35),
    ("vit_small_patch14_reg4_dinov2", "twin", 26),
    ("vit_small_patch14_reg4_dinov2", "stock", 30),
]


@pytest.mark.parametrize(("name", "kind", "kernels"), IN_FEW_BLOCKS)
def test_few_blocks(name: str, kind: str, kernels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, depth = timm_recipe(name, image_size=224), DEPTHS[kind]
    monkeypatch.setattr(timm_vit, "timm_options", lambda structure: {**timm_options(structure), "depth": depth})
    structure = dataclasses.replace(full.structure, depth=depth)  # type: ignore[type-var]
    recipe = dataclasses.replace(full, structure=structure, evolution=scaled_evolution(depth))
    check(counted(recipe, kind, tmp_path / "model.onnx"), (kernels, depth, depth))


def test_every_attention_of_a_model_that_pools_patches_is_fused(tmp_path: Path) -> None:
    path = export_onnx(few("vit_small_patch16_224 avg"), tmp_path / "model.onnx", FP16).path
    report = build_engine(path, options=BATCHES, prove=False).report
    assert (report.fused, report.attentions, report.unfused) == (3, 3, ())


def test_an_original_that_is_a_deit_is_counted_as_one() -> None:
    """Its twin and stock plans are those of DeiT-S, which tests/building/test_kernel_counts.py builds."""
    a, b = (vanilla_recipe(timm_recipe(name)).structure for name in (LIKE_DEIT, "deit_small_patch16_224"))
    assert a == b
    assert documented(LIKE_DEIT, "twin") == (TWIN, DEPTH, DEPTH)
    assert documented(LIKE_DEIT, "stock") == (STOCK, DEPTH, DEPTH)

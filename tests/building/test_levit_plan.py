"""The smallest Evo-LeViT and its twin as TensorRT-RTX plans: what docs/levit.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evovit_deploy import load_recipe, random_checkpoint
from evovit_deploy.building.build import build_engine
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.options import ModelOptions

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "levit.md"
NAME = "evo_levit_128s_224"


def documented(name: str) -> dict[str, float]:
    """Row of a model in the table of docs/levit.md."""
    row = re.search(rf"^\| `{name}` \|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, name
    gmacs, kernels, sync, fused, total = re.findall(r"[\d.]+", row[1])[:5]
    return {"gmacs": float(gmacs), "kernels": int(kernels), "sync": int(sync), "fused": int(fused), "total": int(total)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAME, NAME.removeprefix("evo_")])
def test_plan_is_the_documented_one(name: str, tmp_path: Path) -> None:
    options = ExportOptions(ModelOptions("fp16"), prove=False)
    path = tmp_path / "model.onnx"
    if name == NAME:
        export_onnx(random_checkpoint(load_recipe(name)), path, options)
    else:
        export_baseline(name, path, options)
    report = build_engine(path, options=BuildOptions(target="tensorrt-rtx"), prove=False).report
    expected = documented(name)
    assert (report.fused, report.attentions) == (expected["fused"], expected["total"])
    assert report.unfused == ()
    assert report.precisions["fp16"] > report.kernels / 2
    if not trt.__version__.startswith("1.7."):
        pytest.skip(f"kernels were counted with TensorRT-RTX 1.7, this is {trt.__version__}")
    sync = report.types.get("signal", 0) + report.types.get("wait", 0)
    assert (report.kernels - sync, sync) == (expected["kernels"], expected["sync"])


@pytest.mark.parametrize("name", [NAME, NAME.removeprefix("evo_")])
def test_macs_are_the_documented_ones(name: str) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from evovit_deploy.models.vanilla import build_twin, vanilla_recipe
    from tests.modules import module_of

    if name == NAME:
        module: torch.nn.Module = module_of(random_checkpoint(load_recipe(name)))
    else:
        module = build_twin(vanilla_recipe(name), ModelOptions())
    # The plain form of attention, whose matrix products are counted like all others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(documented(name)["gmacs"], abs=0.0005)

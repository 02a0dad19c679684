"""What a model is measured against: timm's module as it ships, eager and through torch.compile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy.bench.route import Route
from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.export import ExportOptions
from evovit_deploy.models.options import ModelOptions
from tests.conftest import DIGITS


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that Inductor is given. They run as they are: its code would take half a minute to generate."""
    graphs: list[Any] = []

    def compile_fx(graph: Any, inputs: Any, **options: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compile_fx)
    return graphs


@pytest.mark.parametrize(
    ("backend", "kind", "precision"),
    [("onnxruntime", "stock-compiled", "fp32"), ("pytorch", "stock-compiled", "bf16"), ("compile", "stock", "fp32")],
)
def test_stock_through_torch_compile(
    backend: str, kind: str, precision: Any, compiled: list[Any], tmp_path: Path
) -> None:
    recipe = load_checkpoint(DIGITS).recipe
    export = ExportOptions(ModelOptions(precision, "uint8"))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    found = Route(backend, "cpu", 1, (2,), export=export).open_vanilla(kind, recipe, tmp_path)
    eager = Route("pytorch", "cpu", 1, (2,), export=export).open_vanilla("stock", recipe, tmp_path)
    with found.engine as ours, eager.engine as stock:
        assert (ours.backend, ours.device, ours.spec.precision) == ("torch.compile", "cpu", precision)
        assert (ours.spec.input, stock.backend) == ("uint8", "pytorch")
        np.testing.assert_array_equal(ours(images)["logits"], stock(images)["logits"])
    [graph] = compiled  # one: nothing of it runs eager
    calls = [str(node.target) for node in graph.graph.nodes]
    assert sum("scaled_dot_product_attention" in name for name in calls) == 12  # as timm has it, fused in every block
    assert sum("conv2d" in name for name in calls) == 1
    assert not [name for name in calls if "softmax" in name or "evovit" in name]
    assert found.subject.facts.macs == eager.subject.facts.macs

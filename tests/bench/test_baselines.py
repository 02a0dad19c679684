"""What a model is measured against: timm's module as it ships, eager and through torch.compile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy.bench import Settings, benchmark
from evovit_deploy.bench.answers import answers
from evovit_deploy.bench.markdown import figures
from evovit_deploy.bench.reading import parse
from evovit_deploy.bench.route import Route
from evovit_deploy.bench.runs import BenchOptions
from evovit_deploy.bench.settings import baselines_of
from evovit_deploy.bench.summary import summary
from evovit_deploy.bench.text import lines, tables
from evovit_deploy.checkpoint import load_checkpoint
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import InputError
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


def test_several_baselines_of_one_run(clock: Any) -> None:
    def engine(seconds: float) -> FakeEngine:
        return FakeEngine(image_size=32, latency=seconds, sleep=clock.advance)

    engines = {"evo": engine(0.004), "deit twin": engine(0.006), "deit stock-compiled": engine(0.005)}
    settings = Settings((1,), min_seconds=0.5, min_calls=30, warmup_seconds=0, warmup_calls=3)
    against = ("deit twin", "deit stock-compiled")
    found = benchmark(engines, settings, baseline=against, clock=clock, sleep=clock.advance)
    assert found.baselines == against
    evo, *others = found.points
    assert [(s.against, round(s.ratio, 3)) for s in (evo.speedup, *evo.further_speedups) if s] == [
        ("deit twin", 1.5),
        ("deit stock-compiled", 1.25),
    ]
    assert all(point.speedup is None and not point.further_speedups for point in others)
    said = [answer.text for answer in answers(found) if answer.question == "speedup"]
    assert [text.partition(" at ")[0] for text in said] == [
        "evo: 1.50x faster than the vanilla twin",
        "evo: 1.25x faster than stock deit under torch.compile",
    ]
    latency, over = tables(found)
    assert [row[latency.header.index("speedup")].partition(" ")[0] for row in latency.rows] == [
        "1.500",
        "baseline",
        "baseline",
    ]
    assert over.title == "Over deit stock-compiled"
    assert [row[:2] for row in over.rows] == [("1", "evo")]
    assert "latency of deit twin or deit stock-compiled / latency" in " ".join(lines(found))
    best = summary([found])
    assert best is not None
    assert [(row[1][:4], row[-1]) for row in best.rows] == [("1.50", "twin"), ("1.25", "stock-compiled")]
    written = [line.split(" | ") for line in figures([found]).splitlines() if "evo" in line]
    assert sorted((cells[4], cells[6][:4]) for cells in written) == [("stock-compiled", "1.25"), ("twin", "1.50")]
    assert parse(json.dumps(found.to_dict()), "here") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("twin,,stock", "has an empty part"),
        ("auto,twin", "the same baseline twice"),
        ("none,twin", "none stands alone"),
    ],
)
def test_baselines_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        BenchOptions(model="evo_deit_tiny_patch16_224", random_weights=True, baseline=text)


def test_a_file_with_a_comma_in_its_name_is_one_baseline(tmp_path: Path) -> None:
    path = tmp_path / "twin,stock.onnx"
    path.touch()
    assert baselines_of(str(path)) == (str(path),)
    assert baselines_of("twin, stock-compiled") == ("twin", "stock-compiled")

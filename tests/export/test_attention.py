"""The ONNX operator Attention in place of MatMul-Softmax-MatMul: the same model, proven, watched and counted the same way."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from evovit_deploy import Checkpoint, Engine, ExportOptions, InputError, ParityError, export_onnx, random_checkpoint
from evovit_deploy.bench.route import Route
from evovit_deploy.bench.work import onnx_work
from evovit_deploy.cli import app
from evovit_deploy.diagnose import diagnose
from evovit_deploy.engines.emulate import emulate_as_fp16, emulate_fp16
from evovit_deploy.engines.ort.session import session
from evovit_deploy.engines.unfused import unfused
from evovit_deploy.export import export_baseline, verify
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes.write import write_recipe
from tests.diagnose.faults import ALL as FAULTS
from tests.diagnose.faults import grown
from tests.exporting import run
from tests.levit_reference import TINY as LEVIT
from tests.timm_models import merging_of

from .conftest import PAIR

OPERATOR = ExportOptions(attention="operator")
FP16 = dataclasses.replace(OPERATOR, model=ModelOptions("fp16"))


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def files(pair: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An FP32 export with plain attention, and one with the operator; both proven."""
    folder = tmp_path_factory.mktemp("attention")
    plain = export_onnx(pair, folder / "plain.onnx", ExportOptions())
    operator = export_onnx(pair, folder / "operator.onnx", OPERATOR)
    assert "attention" not in plain.manifest
    assert (operator.manifest["attention"], operator.manifest["opset"]) == ("operator", 23)
    return plain.path, operator.path


def test_every_block_has_one_and_the_values_are_those_of_plain(files: tuple[Path, Path]) -> None:
    plain, operator = files
    before, after = operators(plain), operators(operator)
    assert (before["Attention"], after["Attention"]) == (0, PAIR.structure.depth)
    assert before["Softmax"] - after["Softmax"] == PAIR.structure.depth  # the class rows keep theirs
    assert before["MatMul"] - after["MatMul"] == 2 * PAIR.structure.depth
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    with Engine.open(plain, provider="cpu") as one, Engine.open(operator, provider="cpu") as other:
        for some in (images, images[:1]):
            assert np.abs(one(some)["logits"] - other(some)["logits"]).max() <= 1e-5
        assert verify(one, other).passed


def test_as_much_work_is_counted(files: tuple[Path, Path]) -> None:
    plain, operator = map(onnx_work, files)
    assert plain is not None
    assert operator is not None
    assert (operator.macs, operator.weight_bytes) == (plain.macs, plain.weight_bytes)


@pytest.mark.parametrize(("precision", "batch"), [("fp16", None), ("bf16", 2)])
def test_half_precision_is_proven(pair: Checkpoint, tmp_path: Path, precision: str, batch: int | None) -> None:
    model = ModelOptions(precision)  # type: ignore[arg-type]
    options = dataclasses.replace(OPERATOR, model=model, batch=batch)
    result = export_onnx(pair, tmp_path / "model.onnx", options)
    assert result.parity is not None
    assert result.parity.passed
    assert operators(result.path)["Attention"] == PAIR.structure.depth


def test_an_overflow_within_it_is_seen_named_and_mended(pair: Checkpoint, tmp_path: Path) -> None:
    """Queries and keys fit into FP16, their products in block 1 do not. A kernel may keep those in FP32 or round them."""
    overflowing = next(fault for fault in FAULTS if str(fault) == "deit-logits-1").checkpoint(grown(pair))
    with pytest.raises(ParityError, match=r"Overflow begins at blocks\.1/attn/attend/Attention: "):
        export_onnx(overflowing, tmp_path / "model.onnx", FP16)
    assert not list(tmp_path.iterdir())
    islands = dataclasses.replace(FP16, islands=("blocks.1/attn",))
    result = export_onnx(overflowing, tmp_path / "model.onnx", islands)
    assert result.parity is not None
    assert result.parity.passed
    assert "blocks.1/attn/attend/Attention" in result.manifest["islands"]


def test_diagnose_measures_it(files: tuple[Path, Path], pair: Checkpoint, tmp_path: Path) -> None:
    """Of an FP32 file alone; and of an FP16 file against the checkpoint, which is exported the same way."""
    half = export_onnx(pair, tmp_path / "half.onnx", dataclasses.replace(FP16, prove=False)).path
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    for found in (diagnose(files[1], images=images), diagnose(half, against=pair, images=images)):
        measured = {layer.node: layer for layer in found.layers if layer.node.endswith("/Attention")}
        assert list(measured) == [f"blocks.{block}/attn/attend/Attention" for block in range(PAIR.structure.depth)]
        assert all(0 < layer.error < 0.01 for layer in measured.values())
        assert found.passed


@pytest.mark.parametrize("kind", ["twin", "stock"])
def test_the_baseline_takes_the_same_way(files: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    route = Route(provider="cpu", threads=1, batches=(1,))
    with route.open_file(files[1]).engine as engine:
        twin = route.like(engine).open_vanilla(kind, PAIR, tmp_path)
    twin.engine.close()
    assert (twin.engine.spec.manifest or {})["attention"] == "operator"
    assert operators(next(tmp_path.glob("*.onnx")))["Attention"] == PAIR.structure.depth
    plain = export_baseline(PAIR, tmp_path / "plain.onnx", ExportOptions(prove=False), kind=kind)  # type: ignore[arg-type]
    counted = onnx_work(plain.path)
    assert counted is not None
    assert twin.subject.facts.macs == counted.macs


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: random_checkpoint(LEVIT), "not for Evo-LeViT: its values are wider"),
        (
            lambda: merging_of("vit_small_patch14_reg4_dinov2 avg", (4, 4, 0, 4)),
            "the sizes of merged tokens are a bias row",
        ),
    ],
)
def test_families_that_cannot_have_it(tmp_path: Path, source, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=rf"{message}.*Leave --attention out"):
        export_onnx(source(), tmp_path / "model.onnx", OPERATOR)
    assert not list(tmp_path.iterdir())


def test_nor_has_the_twin_of_a_levit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not for LeViT: its values are wider .* has a bias\. Leave --attention out"):
        export_baseline(LEVIT, tmp_path / "model.onnx", OPERATOR)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match=r"needs opset 23, .* and opset 20 was asked for\. Leave --opset out"):
        ExportOptions(opset=20, attention="operator")
    with pytest.raises(InputError, match="attention 'fused' is unknown; valid: plain, operator"):
        ExportOptions(attention="fused")  # type: ignore[arg-type]
    assert ExportOptions(ModelOptions("bf16"), attention="operator").opset_version == 23


def test_the_command_says_it(tmp_path: Path) -> None:
    recipe, path = tmp_path / "tiny.toml", tmp_path / "tiny.onnx"
    write_recipe(recipe, PAIR, "")
    result = run("--recipe", recipe, "--random-weights", "--attention", "operator", "--no-verify", "-o", path)
    assert "opset 23  attention operator" in result.output
    assert operators(path)["Attention"] == PAIR.structure.depth
    told = CliRunner().invoke(app, ["inspect", str(path)]).output
    assert ["attention", "operator"] in [line.split() for line in told.splitlines()]


def one_node(kind: int, mask: bool, **attributes: float) -> onnx.ModelProto:
    """An Attention of foreign making, named by nothing."""
    names = ("q", "k", "v", "mask") if mask else ("q", "k", "v")
    shapes = {"q": [2, 3, 5, 4], "k": [2, 3, 5, 4], "v": [2, 3, 5, 4], "mask": [5, 5]}
    inputs = [helper.make_tensor_value_info(name, kind, shapes[name]) for name in names]
    node = helper.make_node("Attention", names, ["y"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", kind, [2, 3, 5, 4])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("attributes", [{}, {"scale": 0.3}, {"scale": 1.0}])
def test_its_steps_are_the_operator(mask: bool, attributes: dict[str, float]) -> None:
    model = one_node(TensorProto.FLOAT, mask, **attributes)
    steps = unfused(model)
    assert "Attention" not in {node.op_type for node in steps.graph.node}
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 3, 5, 4)).astype(np.float32) for name in "qkv"}
    feeds |= {"mask": rng.standard_normal((5, 5)).astype(np.float32)} if mask else {}
    one, other = (session(m.SerializeToString(), "cpu", 1).run(None, feeds)[0] for m in (model, steps))
    assert np.abs(one - other).max() <= 1e-6
    half = emulate_fp16(one_node(TensorProto.FLOAT16, mask, **attributes))
    rounded = emulate_as_fp16(model)
    for emulated in (half, rounded):
        found = session(emulated.SerializeToString(), "cpu", 1, optimise=False).run(None, feeds)[0]
        assert 0 < np.abs(one - found).max() < 0.01


@pytest.mark.parametrize("attributes", [{"is_causal": 1}, {"softcap": 2.0}])
def test_other_forms_stay_as_they_are(attributes: dict[str, float]) -> None:
    assert [node.op_type for node in unfused(one_node(TensorProto.FLOAT, False, **attributes)).graph.node] == [
        "Attention"
    ]

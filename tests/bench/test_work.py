"""Multiply-accumulates and bytes, against counts made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import flop_registry

from evovit_deploy.bench.route import Route
from evovit_deploy.bench.work import module_work, onnx_work
from evovit_deploy.checkpoint import Checkpoint, random_checkpoint
from evovit_deploy.engines import TorchEngine
from evovit_deploy.export import ExportOptions, export_baseline, export_onnx
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, Recipe, Structure
from tests import timm_models
from tests.export.conftest import PAIR
from tests.levit_reference import TINY


def save(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], batch: int | str = "N") -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_conv_matmul_and_gemm(tmp_path: Path) -> None:
    """4x4 stride-4 convolution to 5 channels, a product of [5, 4] and [4, 6], then a fully connected layer of 30 to 7."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], strides=[4, 4]),
        helper.make_node("Reshape", ["c", "tokens"], ["t"]),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    weights = {
        "k": np.zeros((5, 3, 4, 4), np.float32),
        "tokens": np.array([0, 5, 4]),
        "m": np.zeros((4, 6), np.float32),
        "w": np.zeros((7, 30), np.float32),
        "b": np.zeros(7, np.float32),
    }
    found = onnx_work(save(tmp_path / "m.onnx", nodes, weights))
    assert found is not None
    assert found.macs == 5 * 4 * 48 + 5 * 6 * 4 + 7 * 30
    assert found.weight_bytes == 4 * (5 * 48 + 24 + 210 + 7)
    assert found.activation_bytes == 4 * ((192 + 20) + (20 + 30) + (30 + 7))
    static = onnx_work(save(tmp_path / "static.onnx", nodes, weights, batch=2))
    assert static is not None
    assert static.macs == found.macs


def test_shapes_that_are_not_known(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"]),
        helper.make_node("MatMul", ["f", "t"], ["y"]),
    ]
    assert onnx_work(save(tmp_path / "m.onnx", nodes, {})) is None


def vit_macs(tokens: list[int], c: int = 64, patches: int = 16) -> int:
    """Patch embedding, and for each block with n tokens: qkv, scores, values, proj, MLP."""
    blocks = sum(n * c * 3 * c + 2 * n * n * c + n * c * c + 2 * n * c * 4 * c for n in tokens)
    return patches * c * 3 * 256 + blocks + c * 7


@pytest.mark.parametrize("selection", ["topk", "rank"])
def test_the_exported_model_has_the_work_of_its_schedule(tmp_path: Path, selection: str) -> None:
    options = ExportOptions(ModelOptions(selection=selection, trim=False), prove=False)
    found = onnx_work(export_onnx(random_checkpoint(PAIR), tmp_path / "evo.onnx", options).path)
    assert found is not None
    class_rows = 2 * (2 * 17 * 64)  # q_cls k^T of the blocks whose class attention is alive, at most
    expected = vit_macs([17, 9])
    assert expected <= found.macs <= expected + class_rows


def test_the_twin_has_the_work_counted_by_hand(tmp_path: Path) -> None:
    twin = onnx_work(export_baseline(PAIR, tmp_path / "twin.onnx", ExportOptions(prove=False)).path)
    assert twin is not None
    assert twin.macs == vit_macs([17] * 2)


CHECKPOINTS: dict[str, Callable[[], Checkpoint]] = {
    "evo_deit": lambda: random_checkpoint(PAIR),
    "evo_levit": lambda: random_checkpoint(TINY),
    "timm": lambda: timm_models.checkpoint_of("vit_small_patch14_reg4_dinov2", PAIR.parts(Structure, Evolution)[1]),
}


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_module_has_the_work_of_its_export(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly, and whichever fused attention this version of torch counts."""
    checkpoint = CHECKPOINTS[family]()
    exported = onnx_work(export_onnx(checkpoint, tmp_path / "evo.onnx", ExportOptions(prove=False)).path)
    module = module_work(TorchEngine.from_checkpoint(checkpoint, provider="cpu"))
    assert exported is not None
    assert module is not None
    assert module.macs == exported.macs
    for operator in [known for known in flop_registry if "attention" in str(known)]:
        monkeypatch.delitem(flop_registry, operator)
    assert module_work(TorchEngine.from_checkpoint(checkpoint, provider="cpu")) == module
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("kind", "source"), [("trimmed", PAIR), ("stock", PAIR), ("stock", TINY)])
def test_a_baseline_has_the_work_of_its_export(tmp_path: Path, source: Recipe, kind: str) -> None:
    options = ExportOptions(ModelOptions(), prove=False)
    exported = Route(provider="cpu", export=options).open_vanilla(kind, source, tmp_path)
    module = Route("pytorch", provider="cpu", export=options).open_vanilla(kind, source, tmp_path)
    for found in (exported, module):
        found.engine.close()
    assert module.subject.facts.macs == exported.subject.facts.macs is not None

"""Exported Evo-LeViT in ONNX Runtime against the authors' outputs, and what its graph must look like."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from evovit_deploy import Engine, ExportOptions, export_onnx, load_checkpoint, random_checkpoint
from evovit_deploy.export import export_baseline
from evovit_deploy.images.transform import normalise
from evovit_deploy.models.options import ModelOptions
from tests.levit_reference import NAME, TINY
from tests.modules import module_of

BOTH = ("logits", "kept")


@pytest.fixture(scope="module")
def case(reference):
    """(checkpoint, reference arrays)."""
    return load_checkpoint(reference / f"{NAME}.pth"), dict(np.load(reference / f"{NAME}.npz"))


ALL = (*BOTH, "probabilities")
SMALL = {
    "fp32": ModelOptions(outputs=BOTH),
    "fp16": ModelOptions("fp16", "uint8", outputs=ALL),
    "bf16": ModelOptions("bf16", outputs=ALL),
}


@pytest.fixture(scope="module", params=SMALL)
def result(request, tmp_path_factory):
    """A small export, proven."""
    path = tmp_path_factory.mktemp("levit") / "model.onnx"
    return export_onnx(random_checkpoint(TINY), path, ExportOptions(SMALL[request.param]))


@pytest.fixture
def tiny(result):
    """(precision, path) of it."""
    return result.manifest["precision"], result.path


def test_fp32(case, tmp_path):
    """What is least like the default, from end to end; all six combinations in PyTorch: tests/models/test_levit.py."""
    checkpoint, data = case
    options = ExportOptions(ModelOptions(selection="onehot", outputs=BOTH, fold=False), prove=False)
    with Engine.open(export_onnx(checkpoint, tmp_path / "model.onnx", options).path, provider="cpu") as engine:
        for images in (slice(None), slice(0, 1), slice(2, 5)):
            got = engine(data["images"][images])
            assert np.abs(got["logits"] - data["logits"][images]).max() <= 1e-5
            assert np.array_equal(got["kept_1"], data["sel1_kept"][images])


def test_half_precision_keeps_the_top_class(result):
    """The authors' in half precision in PyTorch: tests/models/test_levit.py."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    images = normalise(pixels, TINY.transform)
    with torch.inference_mode():
        expected = module_of(random_checkpoint(TINY))(torch.from_numpy(images))[0].numpy()
    with emulated(result.path) as engine:
        got = engine(pixels if result.manifest["input"] == "uint8" else images)
    assert np.array_equal(got["logits"].argmax(1), expected.argmax(1))


def test_rank_is_proven(tmp_path):
    """Kept sets included, against the plain module with its sort, in a small model."""
    options = ExportOptions(ModelOptions(selection="rank"))
    report = export_onnx(random_checkpoint(TINY), tmp_path / "model.onnx", options).parity
    assert report.passed
    assert report.jaccard == {"kept_1": 1.0, "kept_2": 1.0}


def test_is_proven(result):
    """In FP16 with uint8 images."""
    asked = SMALL[result.manifest["precision"]]
    assert result.parity.passed
    assert result.manifest["input"] == asked.image_input


def test_outputs_and_manifest(tiny):
    precision, path = tiny
    with Engine.open(path, provider="cpu") if precision != "bf16" else emulated(path) as engine:
        assert engine.spec.outputs == ("logits", "kept_1", "kept_2", *SMALL[precision].outputs[2:])
        got = engine(
            np.zeros((3, 64, 64, 3), np.uint8) if precision == "fp16" else np.zeros((3, 3, 64, 64), np.float32)
        )
    assert (got["kept_1"].shape, got["kept_2"].shape) == ((3, 8), (3, 2))
    assert got["kept_1"].dtype == np.int64


def emulated(path):
    from evovit_deploy.engines import OrtEngine

    return OrtEngine(path, provider="cpu", emulate=True)


def test_query_and_key_are_as_wide_as_the_value_where_tensorrt_can_fuse(tiny):
    """Only in half precision: padding costs time where nothing is fused."""
    precision, path = tiny
    pads = [n.name for n in onnx.load(path).graph.node if n.op_type == "Pad" and "attend" in n.name]
    assert len(pads) == (0 if precision == "fp32" else 2 * 4)


def test_attention_softmax_has_one_consumer(tiny):
    graph = onnx.load(tiny[1]).graph
    softmaxes = [n for n in graph.node if n.op_type == "Softmax" and "attend" in n.name]
    assert len(softmaxes) == 4
    for softmax in softmaxes:
        assert [n.op_type for n in graph.node if softmax.output[0] in n.input] == ["MatMul"]


def test_islands(tiny):
    """Scores, ranks and outputs in FP32, no index in half precision, GEMMs in the precision asked for."""
    precision, path = tiny
    wanted = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    halves = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    for node in model.graph.node:
        kind = kinds[node.output[0]]
        if "attn" in node.name and node.op_type == "MatMul":
            assert kind == wanted, node.name
        if "scores" in node.name or node.op_type in ("TopK", "Greater", "Less", "Equal"):
            assert kind not in halves, node.name
            assert not {kinds.get(value) for value in node.input} & halves, node.name
        if node.op_type == "GatherND":
            assert kinds.get(node.input[1], TensorProto.INT64) == TensorProto.INT64
    assert (kinds["logits"], kinds["kept_1"]) == (TensorProto.FLOAT, TensorProto.INT64)


def test_dead_class_rows_are_not_exported(tiny):
    names = [n.name for n in onnx.load(tiny[1]).graph.node]
    alive = {name.split("/")[0] for name in names if "class_attention" in name}
    assert alive == {"blocks.0", "blocks.1", "after_blocks.1"}


def test_selection_is_found_in_the_graph(tiny):
    """For the plan report: class rows, scores, choosing, carrying away and back; no attention among them."""
    from evovit_deploy.building.onnx_facts import read_onnx

    facts = read_onnx(tiny[1])
    assert len(facts.attentions) == 4
    assert any("class_attention/ReduceSum" in name for name in facts.selection)
    assert any("select/TopK" in name for name in facts.selection)
    assert not any("attend" in name or "mlp" in name for name in facts.selection)


@pytest.mark.parametrize("kind", ["twin", "trimmed", "stock"])
def test_baseline(tmp_path, kind):
    result = export_baseline(TINY, tmp_path / "model.onnx", ExportOptions(), kind=kind)
    assert result.parity.passed
    assert (result.manifest["family"], result.manifest["selection"]) == ("levit", None)

"""What an export writes, says about itself, and leaves behind when it fails."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from evovit_deploy import Engine, ExportError, ExportOptions, InputError, OutputError, ParityError, export_onnx
from evovit_deploy import manifest as manifests
from evovit_deploy.export.onnx import default_name
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Tolerance

from .test_reference import PLAIN

# The graph of a pattern is looked at in the export that is held to the plain model.
FOLDED = {selection: fold for schedule, selection, fold in PLAIN if schedule == "stage"}


def export(tiny, folder, *, batch=None, opset=None, prove=True, **model):
    return export_onnx(tiny, folder / "model.onnx", ExportOptions(ModelOptions(**model), batch, opset, prove))


def types(path):
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    return {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}


def test_files_and_manifest(pair, tmp_path):
    result = export(pair, tmp_path, outputs=("logits", "kept", "probabilities"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.onnx"]
    document = json.loads(result.json_path.read_text())
    embedded = manifests.read({p.key: p.value for p in onnx.load(result.path).metadata_props})
    assert {key: document[key] for key in embedded} == embedded
    assert document["parity"]["passed"] is True
    assert document["weights"] == {"source": "random weights (seed 0)", "random": True, "sha256": None}
    assert document["outputs"] == ["logits", "kept_1", "probabilities"]
    with Engine.open(result.path, provider="cpu") as engine:
        assert engine.spec.outputs == ("logits", "kept_1", "probabilities")
        assert engine.spec.transform == pair.recipe.transform


def test_the_kept_sets_are_proven_also_when_they_are_no_output(tiny, tmp_path):
    result = export(tiny, tmp_path, outputs=("logits",))
    assert set(result.parity.jaccard) == {"kept_1", "kept_2"}
    assert [o.name for o in onnx.load(result.path).graph.output] == ["logits"]
    assert not any("positions" in n.name for n in onnx.load(result.path).graph.node)


@pytest.mark.parametrize("selection", ["sort", "topk", "rank", "onehot"])
def test_dropping_kept_leaves_the_graph_of_an_export_without_it(tiny, tmp_path, selection):
    """The nodes that only `kept` needs are gone: select works without any running count."""
    model = {"outputs": ("logits",), "selection": selection, "fold": FOLDED[selection]}
    path = export(tiny, tmp_path, **model, prove=False).path
    names = [node.name for node in onnx.load(path).graph.node]
    assert len(names) == len(set(names))
    assert not any(tensor.name.startswith("triu") for tensor in onnx.load(path).graph.initializer)


def test_nodes_are_named_after_their_block_and_no_path_is_left(tiny, tmp_path):
    path = export(tiny, tmp_path, prove=False).path
    names = {node.name for node in onnx.load(path).graph.node}
    for name in (
        "blocks.0/attn/qkv/MatMul",
        "blocks.2/fc2/MatMul",
        "after_blocks.0/select/TopK",
        "blocks.1/attn/attend/Softmax",
    ):
        assert name in names
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert b"vit.py" not in content


@pytest.mark.parametrize(
    ("selection", "ops"),
    [("sort", {"TopK", "GatherND"}), ("topk", {"TopK", "GatherND"}), ("rank", {"GatherND"}), ("onehot", set())],
)
def test_each_pattern_exports_its_own_operators(tiny, tmp_path, selection, ops):
    path = export(tiny, tmp_path, selection=selection, fold=FOLDED[selection], prove=False).path
    found = {node.op_type for node in onnx.load(path).graph.node}
    assert found & {"TopK", "GatherND", "ScatterElements", "ScatterND", "GatherElements"} == ops


def test_attention_softmax_has_one_consumer(tiny, tmp_path):
    """A second consumer keeps TensorRT from fusing attention (DESIGN 3.3)."""
    graph = onnx.load(export(tiny, tmp_path, outputs=("logits", "kept"), prove=False).path).graph
    softmaxes = [n for n in graph.node if n.op_type == "Softmax" and "/attend/" in n.name]
    assert len(softmaxes) == 4
    for softmax in softmaxes:
        assert [n.op_type for n in graph.node if softmax.output[0] in n.input] == ["MatMul"]


def test_dead_class_attentions_are_not_exported(tiny, tmp_path):
    names = [n.name for n in onnx.load(export(tiny, tmp_path, prove=False).path).graph.node]
    alive = {name.split("/")[0] for name in names if "/class_row/" in name}
    assert alive == {"blocks.0", "blocks.1", "blocks.2"}


@pytest.mark.parametrize(("precision", "half"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_half_precision_islands(tiny, tmp_path, precision, half):
    """GEMMs in half precision; scores, ranks and outputs in FP32; no index in half precision."""
    path = export(tiny, tmp_path, precision=precision, outputs=("logits", "kept"), prove=False).path
    model, kinds = onnx.load(path), types(path)
    assert {
        t.data_type for t in model.graph.initializer if t.name.endswith("fc1/MatMul.weight") or "qkv" in t.name
    } <= {half}
    for node in model.graph.node:
        kind = kinds[node.output[0]]
        if node.name.startswith("blocks") and node.op_type in ("MatMul", "Gelu", "LayerNormalization"):
            assert kind == half, node.name
        if node.op_type in ("Softmax", "ReduceSum") and ("class_row" in node.name or "/score/" in node.name):
            assert kind == TensorProto.FLOAT, node.name
        if node.op_type in ("TopK", "Greater", "Less", "Equal"):
            for value in node.input:
                assert kinds.get(value, TensorProto.FLOAT) != half, node.name
        if node.op_type == "GatherND":
            assert kinds[node.input[1]] == TensorProto.INT64
    assert kinds["logits"] == TensorProto.FLOAT
    assert kinds["kept_1"] == TensorProto.INT64


@pytest.mark.parametrize("batch", [1, 3])
def test_static_batch(pair, tmp_path, batch):
    path = export(pair, tmp_path, batch=batch).path
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape] == [batch, 3, 64, 64]
    images = np.random.default_rng(0).standard_normal((5, 3, 64, 64)).astype(np.float32)
    with (
        Engine.open(path, provider="cpu") as engine,
        Engine.open(export_onnx(pair, tmp_path / "dynamic.onnx").path, provider="cpu") as dynamic,
    ):
        assert np.allclose(engine(images)["logits"], dynamic(images)["logits"], atol=1e-5)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_opsets(pair, tmp_path, opset):
    path = export(pair, tmp_path, opset=opset).path
    assert [o.version for o in onnx.load(path).opset_import if o.domain == ""] == [opset]


def test_bf16_takes_the_first_opset_that_allows_it(tiny, tmp_path):
    assert export(tiny, tmp_path, precision="bf16").manifest["opset"] == 22


def test_failed_parity_leaves_no_file(tiny, tmp_path):
    tolerances = {**tiny.recipe.tolerances, "fp16": Tolerance(1e-9, 1.0, 1.0, 1.0)}
    strict = dataclasses.replace(tiny, recipe=dataclasses.replace(tiny.recipe, tolerances=tolerances))
    with pytest.raises(ParityError, match="largest logit error") as error:
        export(strict, tmp_path, precision="fp16")
    assert error.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_no_file_and_the_old_one_intact(tiny, tmp_path):
    (tmp_path / "model.onnx").write_text("the old file")

    def step(text):
        if "parity" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_onnx(tiny, tmp_path / "model.onnx", step=step, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the old file"


def test_missing_folder_is_found_before_any_work(tiny, tmp_path):
    steps = []
    with pytest.raises(OutputError, match="does not exist"):
        export_onnx(tiny, tmp_path / "no" / "model.onnx", step=steps.append)
    assert steps == []


def test_full_disk_leaves_nothing(tiny, tmp_path, monkeypatch):
    import evovit_deploy.export.onnx as module

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "sha256", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"batch": 0}, InputError, "batch 0 is impossible"),
        ({"outputs": ("features",)}, InputError, "valid: logits, probabilities, kept"),
        ({"outputs": ("",)}, InputError, "outputs missing"),
        ({"outputs": ("logits", "kept", "logits")}, InputError, "outputs name logits twice"),
        ({"opset": 9}, ExportError, "valid: 18 to 23"),
    ],
)
def test_impossible_options(tiny, tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        export(tiny, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_default_name_says_model_size_and_precision(tiny):
    options = ExportOptions(ModelOptions("fp16", "uint8"), batch=4)
    assert default_name(tiny.recipe, options) == "evo_deit_tiny_test_64_fp16_uint8_b4.onnx"

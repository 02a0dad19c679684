"""`diagnose`: who is to blame for a fault, what a sound model looks like, and what is refused."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from evovit_deploy import ExportOptions, ModelOptions, export_onnx
from evovit_deploy.cli import app
from evovit_deploy.diagnose import diagnose
from evovit_deploy.diagnose.report import block_of
from evovit_deploy.errors import InputError, ModelFileError, ParityError

from .faults import ALL, Fault, healthy, levit_logits

FEW = {str(fault): fault for fault in ALL}

pytestmark = pytest.mark.usefixtures("weights_into_one_export")


def few_images(size=64, count=2):
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "reason", "node"),
    [
        ("deit-mlp-2", "overflow", "blocks.2/fc1/MatMul"),
        ("deit-logits-1", "overflow", "blocks.1/attn/attend/MatMul"),
        ("levit-fold-1", "weight", "blocks.1/mlp/fc1/linear/MatMul"),
    ],
)
def test_the_guilty_node_is_named(name, reason, node):
    fault: Fault = FEW[name]
    found = diagnose(fault.checkpoint(), images=few_images())
    assert not found.passed
    first = found.culprits[0]
    assert (first.reason, first.node, first.block) == (reason, node, fault.block)
    assert first.node in {layer.node for layer in found.layers}
    json.dumps(found.to_dict(), default=str)


def test_a_sound_model_has_nobody_to_blame(tmp_path):
    """Also as a file: FP16 against its FP32 export, alone, and FP32 as FP16 would have it."""
    sound, images = healthy("deit"), few_images()
    found = diagnose(sound, images=images, names=["one", "two"])
    assert (found.passed, found.culprits, found.images) == (True, (), ("one", "two"))
    assert [growth.block for growth in found.blocks] == [0, 1, 2]  # the last adds to the mean only
    assert [stage.name for stage in found.stages] == ["kept_1", "kept_2"]
    assert all(0 < layer.error < 0.01 for layer in found.layers if layer.range_used and "norm" not in layer.node)
    paths = {p: tmp_path / f"{p}.onnx" for p in ("fp16", "fp32")}
    for precision, path in paths.items():
        options = ExportOptions(ModelOptions(precision, outputs=("logits", "kept")), prove=False)
        export_onnx(sound, path, options)
    for file in (
        diagnose(paths["fp16"], against=paths["fp32"], images=images),
        diagnose(paths["fp16"], images=images),
        diagnose(paths["fp32"], images=images),
        diagnose(paths["fp16"], against=sound, images=images),
    ):
        assert (file.passed, file.culprits) == (True, ())
        assert 0 < max(layer.error for layer in file.layers) < 0.01
        assert len(file.layers) == len(found.layers)


def test_a_file_of_another_tool_is_told_by_its_node_names(tmp_path):
    half, make = onnx.TensorProto.FLOAT16, onnx.helper
    weights = [
        make.make_tensor("w", half, [3, 2], np.full(6, 30000.0, np.float16).tobytes(), raw=True),
        make.make_tensor("s", half, [2], np.array([1e-4, 1e-4], np.float16).tobytes(), raw=True),
    ]
    nodes = [
        make.make_node("Cast", ["images"], ["h"], "in", to=half),
        make.make_node("GlobalAveragePool", ["h"], ["pool"], "/pool"),
        make.make_node("Flatten", ["pool"], ["flat"], "/flatten"),
        make.make_node("MatMul", ["flat", "w"], ["big"], "/layers.5/mlp/MatMul"),
        make.make_node("Mul", ["big", "s"], ["small"], "/layers.5/scale/Mul"),
        make.make_node("Cast", ["small"], ["logits"], "out", to=onnx.TensorProto.FLOAT),
    ]
    ends = [
        make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["b", 3, 32, 32]),
        make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["b", 2]),
    ]
    graph = make.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "foreign.onnx")
    found = diagnose(tmp_path / "foreign.onnx", images=np.full((1, 3, 32, 32), 2.0, np.float32))
    assert [(c.node, c.block, c.reason) for c in found.culprits] == [("/layers.5/mlp/MatMul", 5, "overflow")]


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("blocks.3/fc1/MatMul", 3),
        ("after_blocks.3/select/TopK", 4),
        ("/blocks/blocks.11/attn/MatMul", 11),
        ("/encoder/layer.7/output/Add", 7),
        ("patch_embed/Conv", None),
    ],
)
def test_blocks_are_read_from_names(node, block):
    assert block_of(node) == block


def test_what_cannot_be_diagnosed_is_said(tmp_path):
    with pytest.raises(ModelFileError, match=r"no\.onnx"):
        diagnose(tmp_path / "no.onnx")
    with pytest.raises(InputError, match="its own FP32 reference"):
        diagnose(healthy("levit"), against=tmp_path / "x.onnx")
    with pytest.raises(InputError, match="valid: fp16, bf16"):
        diagnose(healthy("levit"), precision="int8")
    (tmp_path / "x.engine").write_bytes(b"x")
    with pytest.raises(InputError, match=r"ONNX file or checkpoint that it was built from with --against"):
        diagnose(tmp_path / "x.engine")


def test_the_command(tmp_path, monkeypatch):
    """A table and a picture; one document; exit 3 for a broken model, and another's picture is not replaced."""
    monkeypatch.chdir(tmp_path)
    export_onnx(FEW["levit-mlp-1"].checkpoint(), "bad.onnx", ExportOptions(ModelOptions("fp16"), prove=False))
    images = few_images(64, 1)[0].transpose(1, 2, 0)
    from PIL import Image

    Image.fromarray(((images - images.min()) * 50).clip(0, 255).astype(np.uint8)).save("photo.png")
    for _ in range(2):  # its own picture is replaced
        result = CliRunner().invoke(app, ["diagnose", "bad.onnx", "--images", "photo.png", "-o", "x.svg"])
        assert result.exit_code == 1
        assert type(result.exception).__name__ == "ParityError"
        assert "blocks.1/mlp/fc1" in str(result.exception)
        assert "weight: blocks.1/mlp/fc1" in result.output
    picture = ElementTree.parse(tmp_path / "x.svg")  # well-formed, with its signature
    assert "blocks.1/mlp/fc1" in " ".join(title.text or "" for title in picture.iterfind(".//{*}circle/{*}title"))
    (tmp_path / "x.svg").write_text("mine")
    result = CliRunner().invoke(app, ["diagnose", "bad.onnx", "--images", "photo.png", "-o", "x.svg"])
    assert type(result.exception).__name__ == "OutputError"
    assert (tmp_path / "x.svg").read_text() == "mine"
    result = CliRunner().invoke(app, ["diagnose", "bad.onnx", "--images", "photo.png", "--json"])
    document = json.loads(result.stdout)
    assert (document["passed"], document["culprits"][0]["block"]) == (False, 1)


def test_a_file_with_fewer_outputs_than_its_reference(tmp_path):
    """As `evovit export --precision fp16` writes it: logits, and no kept sets."""
    checkpoint = healthy("deit")
    export_onnx(checkpoint, tmp_path / "logits.onnx", ExportOptions(ModelOptions("fp16"), prove=False))
    images, names = few_images(checkpoint.recipe.structure.image_size, 2), ("a", "b")
    assert diagnose(tmp_path / "logits.onnx", against=checkpoint, images=images, names=names).passed
    other = onnx.load(export_onnx(checkpoint, tmp_path / "other.onnx", ExportOptions(prove=False)).path)
    other.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]))
    other.graph.output[0].name = "probabilities"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match="no output in common: probabilities and logits"):
        diagnose(tmp_path / "logits.onnx", against=tmp_path / "other.onnx", images=images, names=names)


def test_what_is_not_finite_in_fp32_is_no_fault_of_fp16(tmp_path):
    """LeViT's attention so sharp that no dropped token has any score: the mean weighted by them is 0 / 0."""
    checkpoint = Fault("sharp", "levit", 0, levit_logits).checkpoint()
    found = diagnose(checkpoint, images=few_images())
    assert (found.passed, found.culprits[0].reason) == (False, "reference")
    assert "Div is not finite in FP32 itself, in image 1" in found.culprits[0].text
    for islands in ((), "auto"):
        with pytest.raises(ParityError, match=r"reference itself is not finite .* No precision mends that"):
            export_onnx(checkpoint, tmp_path / "x.onnx", ExportOptions(ModelOptions("fp16"), islands=islands))
    assert not list(tmp_path.iterdir())

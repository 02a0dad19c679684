from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.building.onnx_facts import OnnxFacts, read_onnx
from evovit_deploy.building.plan import Kernel, check_plan, make_report, parse_inspector, parse_log
from evovit_deploy.errors import ModelFileError, PlanError
from tests.trt_models import DEPTH, tiny_onnx

LINE = (
    "Name: {name}, LayerType: {type}, Inputs: [ {{ Name: a, Dimensions: [-1,8], Strides: [8,1], StrideOrder: [1,0], "
    "Datatype: {inputs}, Format: (Linear) Row major linear format }}], Constants: [ {{ Name: c, Dimensions: [8], Strides: [1], "
    "StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }}], Outputs: [ {{ Name: b, Dimensions: "
    "[-1,8], Strides: [8,1], StrideOrder: [1,0], Datatype: {outputs}, Format: (Linear) Row major linear format }}], TacticName: "
    "x, StreamId: 0, Metadata: {metadata}"
)


def facts(**changes: Any) -> OnnxFacts:
    values: dict[str, Any] = {
        "path": Path("model.onnx"),
        "sha256": "0",
        "input_name": "images",
        "image_shape": (3, 8, 8),
        "image_input": "float32",
        "batch": None,
        "outputs": {"logits": (None, 5)},
        "scores": "logits",
        "precision": "fp16",
        "manifest": None,
        "attentions": ("one/Softmax", "two/Softmax"),
        "selection": frozenset({"topk/TopK", "select/Gather"}),
        "weighted": {"fc/MatMul": "fp16", "row/MatMul": "fp32"},
    }
    return OnnxFacts(**{**values, **changes})


def kernel(name: str, *onnx: str, inputs: str = "fp16", outputs: str = "fp16") -> Kernel:
    return Kernel(name, "kgen", (inputs,), (outputs,), onnx)


def report(*kernels: Kernel, **changes: Any) -> Any:
    return make_report(kernels, facts(**changes), weights_bytes=None, activation_bytes=None)


def test_log_lines_become_kernels() -> None:
    text = "\n".join(
        [
            "Layers:",
            LINE.format(
                name="_gemm_mha_v2_myl0_8", type="kgen", inputs="Half", outputs="Half",
                metadata="[ONNX Layer: blocks.0/MatMul_2][ONNX Layer: blocks.0/Softmax]",
            ),
            LINE.format(name="__myl_Topk", type="kgen", inputs="Float", outputs="Int64", metadata="[ONNX Layer: topk/TopK]"),
            "Name: shapes, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: ",
            "",
            "I/O Tensors:",
            " Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,112,112]",
        ]
    )  # fmt: skip
    mha, topk, shapes = parse_log(text)
    assert mha == Kernel(
        "_gemm_mha_v2_myl0_8", "kgen", ("fp16", "fp32"), ("fp16",), ("blocks.0/MatMul_2", "blocks.0/Softmax")
    )
    assert mha.fused_attention
    assert not topk.fused_attention
    assert [k.precision for k in (mha, topk, shapes)] == ["fp16", "integer", "none"]
    assert shapes.type == "shape_call"


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ({"Name": "a", "Dimensions": [1], "Format/Datatype": "Row major linear FP16 format"}, "fp16"),
        ({"Name": "a", "Dimensions": [1], "Format/Datatype": "Half"}, "fp16"),
        (
            {"Name": "a", "Dimensions": [1], "Datatype": "BFloat16", "Format": "(Linear) Row major linear format"},
            "bf16",
        ),
        ({"Name": "a", "Dimensions": [1], "Format/Datatype": "Row major linear FP32"}, "fp32"),
    ],
)
def test_inspector_of_tensorrt_10_and_11(tensor: dict[str, Any], kind: str) -> None:
    layer = {
        "Name": "_gemm_mha_v2_myl0_1", "LayerType": "kgen", "Inputs": [tensor], "Outputs": [tensor], "TacticName": "t",
        "StreamId": 0, "Metadata": "[ONNX Layer: blocks.0/Softmax]\x1e[ONNX Layer: blocks.0/MatMul]",
    }  # fmt: skip
    (found,) = parse_inspector(json.dumps({"Layers": [layer], "Bindings": ["images"]}))
    assert found.outputs == (kind,)
    assert found.onnx == ("blocks.0/Softmax", "blocks.0/MatMul")


@pytest.mark.parametrize("document", ["not JSON", "{}", '{"Layers": ["only a name"]}', '{"Layers": [{}]}'])
def test_an_inspector_without_details_is_refused(document: str) -> None:
    with pytest.raises(ModelFileError):
        parse_inspector(document)


def test_fused_attention_is_counted_by_onnx_node() -> None:
    found = report(kernel("_gemm_mha_v2_1", "one/Softmax"), kernel("softmax", "two/Softmax"))
    assert (found.fused, found.attentions, found.unfused) == (1, 2, ("two/Softmax",))
    with pytest.raises(PlanError, match="1 of 2 places: not in two/Softmax"):
        check_plan(found, facts(), require_fused_attention=True)
    check_plan(found, facts())


def test_fused_attention_without_onnx_names_is_counted_by_kernel() -> None:
    found = report(kernel("_gemm_mha_v2_1"), kernel("_gemm_mha_v2_2"))
    assert (found.fused, found.unfused) == (2, ())


def test_selection_is_told_from_what_shares_a_kernel_with_it() -> None:
    found = report(kernel("a", "topk/TopK"), kernel("b", "select/Gather", "norm/LayerNormalization"), kernel("c", "x"))
    assert found.selection == ("a", "b")
    assert found.selection_only == 1
    assert found.to_dict()["selection"] == {"kernels": ["a", "b"], "only": 1}


def test_half_precision_that_became_fp32_is_refused() -> None:
    good = kernel("gemm", "fc/MatMul")
    check_plan(report(good), facts())
    fell_back = kernel("gemm", "fc/MatMul", inputs="fp32", outputs="fp32")
    with pytest.raises(PlanError, match=r"does fc/MatMul in fp16, but the plan runs it in fp32 \(kernel gemm\)"):
        check_plan(report(good, fell_back), facts())
    # What is FP32 in the ONNX file may be FP32 in the plan.
    check_plan(report(good, kernel("row", "row/MatMul", inputs="fp32", outputs="fp32")), facts())


def test_half_precision_that_is_nowhere_is_refused_even_without_onnx_names() -> None:
    with pytest.raises(PlanError, match="no kernel of the plan is"):
        check_plan(report(kernel("gemm", inputs="fp32", outputs="fp32")), facts())


def test_too_many_kernels() -> None:
    found = report(kernel("a"), kernel("b"))
    check_plan(found, facts(), max_kernels=2)
    with pytest.raises(PlanError, match="2 kernels, more than --max-kernels 1") as caught:
        check_plan(found, facts(), max_kernels=1)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("pattern", ["sort", "topk", "rank", "onehot"])
def test_onnx_facts_of_every_selection_pattern(pattern: str) -> None:
    found = read_onnx(tiny_onnx(pattern=pattern))
    assert len(found.attentions) == DEPTH
    assert (found.image_shape, found.batch, found.precision, found.num_classes) == ((3, 64, 64), None, "fp16", 7)
    nodes = {name.rsplit("/", 1)[-1].split("_")[0] for name in found.selection}
    assert "Softmax" in nodes  # the class row
    assert ("TopK" in nodes) == (pattern in ("sort", "topk"))
    # Nothing that only carries tokens forward belongs to it.
    assert not nodes & {"LayerNormalization", "Gelu", "Conv", "Gemm"}
    assert not any("qkv" in name or "fc1" in name or "proj" in name for name in found.selection)
    assert not set(found.attentions) & found.selection

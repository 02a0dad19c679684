"""What `build_engine` does with ONNX files that are broken, or that another tool made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from evovit_deploy.building import build as build_module
from evovit_deploy.building.build import build_engine
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import ModelFileError
from tests.trt_models import tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = BuildOptions(target="tensorrt-rtx")


def save(
    path: Path, *nodes: Any, inputs: Any = None, constants: tuple[Any, ...] = (), output: Any = None, opset: int = 20
) -> Path:
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    out = output or helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(list(nodes), "g", inputs or [image], [out], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


WEIGHT = numpy_helper.from_array(np.zeros((3, 5), np.float32), "w")
MEAN = helper.make_node("ReduceMean", ["images", "axes"], ["m"], name="pool", keepdims=0)
AXES = numpy_helper.from_array(np.array([2, 3]), "axes")
HEAD = helper.make_node("MatMul", ["m", "w"], ["logits"], name="head")


def test_files_that_are_no_model_never_reach_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "build_plan", lambda *a: pytest.fail("TensorRT was given a broken file"))
    data = tiny_onnx().read_bytes()
    half = numpy_helper.from_array(np.zeros((3, 5), np.float16), "w")
    wide = numpy_helper.from_array(np.zeros((4, 5), np.float32), "w")
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])
    other = helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 3, 8, 8])
    free = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", 8])
    grey = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])
    made_up = helper.make_node("MakeBelieve", ["m"], ["logits"], name="odd")
    broken = {
        "garbage": (tmp_path / "garbage.onnx", "not an ONNX"),
        "cut": (tmp_path / "cut.onnx", "damaged or truncated|not valid ONNX"),
        "empty": (tmp_path / "empty.onnx", "is empty"),
        "types": (save(tmp_path / "types.onnx", MEAN, HEAD, constants=(half, AXES)), "head"),
        "shapes": (save(tmp_path / "shapes.onnx", MEAN, HEAD, constants=(wide, AXES)), "head"),
        "op": (save(tmp_path / "op.onnx", MEAN, made_up, constants=(AXES,)), "MakeBelieve"),
        "dangling": (save(tmp_path / "dangling.onnx", MEAN, HEAD, constants=(AXES,)), "'w'|: w |head"),
        "inputs": (save(tmp_path / "in.onnx", MEAN, HEAD, inputs=[image, other], constants=(WEIGHT, AXES)), "has 2 inputs"),
        "dynamic": (save(tmp_path / "dyn.onnx", MEAN, HEAD, inputs=[free], constants=(WEIGHT, AXES)), "only B is dynamic"),
        "grey": (save(tmp_path / "grey.onnx", MEAN, helper.make_node("MatMul", ["m", "v"], ["logits"]), inputs=[grey],
                      constants=(numpy_helper.from_array(np.zeros((1, 5), np.float32), "v"), AXES)), "square RGB"),
        "missing": (tmp_path / "missing.onnx", "no such file"),
    }  # fmt: skip
    broken["garbage"][0].write_bytes(b"garbage" * 50)
    broken["cut"][0].write_bytes(data[: len(data) // 2])
    broken["empty"][0].write_bytes(b"")
    for name, (path, message) in broken.items():
        with pytest.raises(ModelFileError, match=message) as caught:
            build_engine(path, tmp_path / "m.engine", RTX)
        assert str(path) in str(caught.value), name
    assert not list(tmp_path.glob("*.engine*"))


def test_an_operator_that_tensorrt_does_not_know_is_named(tmp_path: Path) -> None:
    path = save(
        tmp_path / "bitwise.onnx",
        MEAN,
        helper.make_node("Cast", ["m"], ["text"], name="to_text", to=TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["back"], name="from_text", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["back", "w"], ["logits"], name="head"),
        constants=(WEIGHT, AXES),
    )
    with pytest.raises(ModelFileError, match=r"node to_text \(Cast\)"):
        build_engine(path, tmp_path / "m.engine", RTX)
    assert not list(tmp_path.glob("*.engine*"))


def test_a_file_of_another_tool_builds(tmp_path: Path) -> None:
    path = save(tmp_path / "other.onnx", MEAN, HEAD, constants=(WEIGHT, AXES))
    result = build_engine(path, options=RTX, prove=False)
    assert result.path == tmp_path / "other.engine"
    assert (result.manifest["model"], result.manifest["transform"], result.manifest["name"]) == (None, None, "other")
    assert (result.report.fused, result.report.attentions, result.report.selection) == (0, 0, ())

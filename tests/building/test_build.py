"""What a build makes: plan, manifest and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from evovit_deploy.building.build import BuildResult, build_engine
from evovit_deploy.engines.trt.api import load_api
from evovit_deploy.engines.trt.engine_manifest import describe_engine
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import PlanError
from evovit_deploy.storage.files import sha256
from tests.trt_models import CLASSES, DEPTH, SIZE, tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = BuildOptions(target="tensorrt-rtx")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_engine(tiny_onnx(), tmp_path_factory.mktemp("built") / "model.engine", RTX, prove=False)


def test_a_build_writes_a_plain_plan_and_its_manifest(built: BuildResult) -> None:
    assert {p.name for p in built.path.parent.iterdir()} == {"model.engine", "model.engine.json"}
    document = json.loads(built.manifest_path.read_text())
    assert document == built.manifest
    assert document["plan"] == {"sha256": sha256(built.path), "bytes": built.path.stat().st_size}
    assert document["onnx"] == {"file": tiny_onnx().name, "sha256": sha256(tiny_onnx())}
    assert (document["flavour"], document["version"]) == ("tensorrt-rtx", load_api("tensorrt-rtx").version)
    assert document["batch"] == {"min": 1, "opt": 8, "max": 64}
    assert document["io"] == {
        "input": {"name": "images", "dtype": "float32", "shape": [None, 3, SIZE, SIZE]},
        "outputs": {"logits": [None, CLASSES]},
    }
    assert (document["precision"], document["num_classes"], document["name"]) == ("fp16", CLASSES, "evo_deit_test")
    assert document["transform"]["interpolation"] == "bicubic"
    assert document["model"]["recipe"]["evolution"]["keep_ratios"] == [1.0, 0.5]
    assert document["status"] == "built, not run here"
    assert str(built.path.parent) not in built.manifest_path.read_text()  # no path of the machine that built it


def test_the_plan_report_is_read_from_the_plan(built: BuildResult) -> None:
    report = built.report
    assert (report.fused, report.attentions, report.unfused) == (DEPTH, DEPTH, ())
    assert report.kernels == len(report.layers) == sum(report.types.values()) == sum(report.precisions.values())
    assert report.precisions["fp16"] > report.kernels / 2
    assert 0 < report.selection_only <= len(report.selection) < report.kernels
    assert any("Topk" in name for name in report.selection)
    parameters = sum(np.prod(t.dims) for t in onnx.load(tiny_onnx()).graph.initializer if len(t.dims) > 1)
    assert report.weights_bytes is not None
    assert 1.5 * parameters < report.weights_bytes < 3 * parameters  # two bytes each
    assert report.activation_bytes is not None
    assert report.activation_bytes > 0
    assert json.loads(built.manifest_path.read_text())["report"] == json.loads(json.dumps(report.to_dict()))


def test_building_again_gives_the_same_plan_report(built: BuildResult, tmp_path: Path) -> None:
    again = build_engine(tiny_onnx(), tmp_path / "again.engine", RTX, prove=False)
    assert again.report.to_dict() == built.report.to_dict()


def test_a_description_needs_neither_tensorrt_nor_a_gpu(built: BuildResult) -> None:
    document = describe_engine(built.path)
    assert document["manifest"] == built.manifest
    assert (document["kind"], document["flavour"], document["notes"]) == ("engine", "tensorrt-rtx", [])


@pytest.mark.parametrize(
    ("precision", "image_input", "outputs", "fused"),
    [("fp32", "float32", "logits", 0), ("bf16", "float32", "logits", DEPTH), ("fp16", "uint8", "logits,kept", DEPTH)],
)
def test_variants_build(tmp_path: Path, precision: str, image_input: str, outputs: str, fused: int) -> None:
    source = tiny_onnx(precision, image_input, outputs=outputs)
    result = build_engine(source, tmp_path / "m.engine", RTX, prove=False)
    assert (result.report.fused, result.report.attentions) == (fused, DEPTH)
    assert result.manifest["precision"] == precision
    assert result.report.precisions[precision] > result.report.kernels / 2
    assert result.manifest["io"]["input"]["dtype"] == image_input
    assert list(result.manifest["io"]["outputs"]) == (["logits", "kept_1"] if "kept" in outputs else ["logits"])
    assert any("--precision fp16" in note for note in result.notes) == (precision == "fp32")
    if precision == "fp32":
        with pytest.raises(PlanError, match=r"0 of 2 places.*--precision fp16"):
            build_engine(
                source,
                tmp_path / "n.engine",
                BuildOptions(target="tensorrt-rtx", require_fused_attention=True),
                prove=False,
            )
        assert not (tmp_path / "n.engine").exists()


def test_a_static_engine_from_a_dynamic_file_is_leaner(built: BuildResult, tmp_path: Path) -> None:
    options = BuildOptions(target="tensorrt-rtx", batch=2, compute_capabilities=("8.6", "12.0"), max_kernels=200)
    result = build_engine(tiny_onnx(), tmp_path / "static.engine", options, prove=False)
    assert result.manifest["batch"] == {"min": 2, "opt": 2, "max": 2}
    assert result.manifest["io"]["input"]["shape"] == [2, 3, SIZE, SIZE]
    assert result.manifest["compute_capabilities"] == ["8.6", "12.0"]
    assert result.report.types.get("shape_call", 0) < built.report.types["shape_call"]


def test_too_many_kernels_leaves_what_was_there(built: BuildResult, tmp_path: Path) -> None:
    (tmp_path / "m.engine").write_text("before")
    with pytest.raises(PlanError, match="more than --max-kernels 5"):
        build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx", max_kernels=5), force=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"m.engine": "before"}

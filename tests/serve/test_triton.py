from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx.external_data_helper import convert_model_to_external_data
from tritonclient.grpc import model_config_pb2 as pb
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.engines import Engine
from evovit_deploy.errors import EngineError, EvoVitError, InputError, ModelFileError, OutputError
from evovit_deploy.packages.triton import TritonOptions, package_triton, read_model

from .conftest import DIGITS

COPIED = {"config.pbtxt", "configs/ci_cpu.pbtxt", "1/model.onnx"}


def config(folder: Path, name: str = "config.pbtxt") -> Any:
    """A configuration, parsed with Triton's schema, which refuses what it does not know."""
    return text_format.Parse((folder / name).read_text(), pb.ModelConfig())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def signature(tensors: Any) -> list[tuple[str, str, list[int]]]:
    return [(t.name, pb.DataType.Name(t.data_type), list(t.dims)) for t in tensors]


def test_an_onnx_file(digits_model: Path, tmp_path: Path) -> None:
    labels = (DIGITS / "labels.txt").read_text().split()
    folder = package_triton(
        digits_model, tmp_path / "repository", TritonOptions(instances=2, max_delay_us=300), labels=labels
    )
    assert folder == tmp_path / "repository" / "digits"
    assert files(folder) == COPIED | {"labels.txt"}
    assert (folder / "1" / "model.onnx").read_bytes() == digits_model.read_bytes()
    found = config(folder)
    assert (found.name, found.backend, found.max_batch_size) == ("digits", "onnxruntime", 32)
    assert signature(found.input) == [("images", "TYPE_UINT8", [64, 64, 3])]
    assert signature(found.output) == [
        ("logits", "TYPE_FP32", [10]),
        ("probabilities", "TYPE_FP32", [10]),
        ("kept_1", "TYPE_INT64", [32]),
        ("kept_2", "TYPE_INT64", [32]),
    ]
    assert [output.label_filename for output in found.output] == ["labels.txt", "labels.txt", "", ""]
    assert (folder / "labels.txt").read_text().split() == labels
    assert found.dynamic_batching.max_queue_delay_microseconds == 300
    policy = found.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (256, 1_000_000)
    assert (found.instance_group[0].kind, found.instance_group[0].count) == (pb.ModelInstanceGroup.KIND_GPU, 2)
    assert [warm.batch_size for warm in found.model_warmup] == [1, 32]
    assert found.version_policy.HasField("all")
    ci = config(folder, "configs/ci_cpu.pbtxt")
    assert (ci.instance_group[0].kind, ci.instance_group[0].count) == (pb.ModelInstanceGroup.KIND_CPU, 1)
    assert signature(ci.output) == signature(found.output)


def test_what_is_packaged_still_runs(digits_model: Path, tmp_path: Path) -> None:
    folder = package_triton(digits_model, tmp_path)
    found = config(folder)
    with Engine.open(folder / "1" / "model.onnx", provider="cpu") as engine:
        assert list(found.input[0].dims) == list(engine.spec.image_shape)
        assert [output.name for output in found.output] == list(engine.spec.outputs)


def test_a_model_of_another_tool_keeps_its_names(sums_model: Path, tmp_path: Path) -> None:
    found = config(package_triton(sums_model, tmp_path, TritonOptions(name="x", max_batch=4, cpu=True)))
    assert signature(found.input) == [("image", "TYPE_UINT8", [4, 4, 3])]
    assert signature(found.output) == [("sums", "TYPE_FP32", [3])]
    assert (found.name, found.max_batch_size) == ("x", 4)
    assert found.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU


def test_a_plan(plan: Callable[..., Path], tmp_path: Path) -> None:
    folder = package_triton(plan(), tmp_path / "repository")
    assert files(folder) == {"config.pbtxt", "1/model.plan"}
    found = config(folder)
    assert (found.backend, found.max_batch_size) == ("tensorrt", 64)
    assert signature(found.output) == [("logits", "TYPE_FP32", [5]), ("kept_1", "TYPE_INT64", [3])]
    assert list(found.dynamic_batching.preferred_batch_size) == [8]
    assert found.optimization.cuda.graphs
    assert list(found.instance_group[0].profile) == ["0"]


def test_a_static_batch_is_part_of_the_shapes(plan: Callable[..., Path], tmp_path: Path) -> None:
    found = config(package_triton(plan(batch=(4, 4, 4)), tmp_path / "repository"))
    assert found.max_batch_size == 0
    assert signature(found.input) == [("images", "TYPE_UINT8", [4, 8, 8, 3])]
    assert signature(found.output)[0] == ("logits", "TYPE_FP32", [4, 5])
    assert not found.HasField("dynamic_batching")


def test_plans_that_cannot_be_packaged(plan: Callable[..., Path], tmp_path: Path) -> None:
    for options, error, reason in (
        ({"tag": b"vtrt"}, EngineError, "Triton has no backend for it"),
        ({}, InputError, "batches up to 64, not 65"),
    ):
        with pytest.raises(error, match=reason):
            package_triton(plan(**options), tmp_path / "repository", TritonOptions(max_batch=65))
    with pytest.raises(InputError, match="runs on a GPU only"):
        package_triton(plan(), tmp_path / "repository", TritonOptions(cpu=True))
    (tmp_path / "small.engine.json").unlink()
    with pytest.raises(ModelFileError, match="no manifest"):
        package_triton(plan(manifest=False), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_versions(sums_model: Path, digits_model: Path, tmp_path: Path) -> None:
    folder = package_triton(sums_model, tmp_path)
    with pytest.raises(OutputError, match="Give another --model-version"):
        package_triton(sums_model, tmp_path)
    package_triton(sums_model, tmp_path, TritonOptions(version=2, max_queue=7))
    assert files(folder) == COPIED | {"2/model.onnx"}
    assert config(folder).dynamic_batching.default_queue_policy.max_queue_size == 7
    with pytest.raises(OutputError, match="a different backend, batch, inputs or outputs"):
        package_triton(digits_model, tmp_path, TritonOptions(name="sums", version=3))
    (folder / "config.pbtxt").write_text("nonsense {")
    with pytest.raises(OutputError, match="no readable config"):
        package_triton(sums_model, tmp_path, TritonOptions(version=3))
    assert files(folder) == COPIED | {"2/model.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["sums"]  # no scratch folder is left


def test_weights_in_other_files_are_refused(tmp_path: Path, sums_model: Path) -> None:
    model = onnx.load(str(sums_model))
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, str(tmp_path / "split.onnx"))
    with pytest.raises(ModelFileError, match="weights in other files"):
        package_triton(tmp_path / "split.onnx", tmp_path / "repository")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ModelFileError):
        package_triton(tmp_path / "text.onnx", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "../x"},
        {"name": ""},
        {"version": 0},
        {"max_batch": 0},
        {"instances": 0},
        {"max_delay_us": -1},
        {"max_delay_us": 1_000_000},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TritonOptions(**options)


def test_labels_must_fit(sums_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 labels for a model of 3 classes"):
        package_triton(sums_model, tmp_path, labels=["a", "b"])


def test_the_command(sums_model: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    words = ["package", "triton", str(sums_model), "-o", str(tmp_path / "r"), "--labels", str(labels), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["files"] == [f"sums/{name}" for name in sorted((*COPIED, "labels.txt"))]
    result = CliRunner().invoke(app, ["package", "triton", str(tmp_path / "missing.onnx"), "-o", str(tmp_path / "r")])
    assert isinstance(result.exception, EvoVitError)
    assert result.exception.exit_code == 2


def test_read_model_says_what_triton_needs(sums_model: Path) -> None:
    model = read_model(sums_model)
    assert (model.backend, model.num_classes, model.batch, model.max_batch) == ("onnxruntime", 3, None, None)

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from evovit_deploy.checkpoint import load_checkpoint, random_checkpoint
from evovit_deploy.cli.inspect import inspect
from evovit_deploy.describe import describe, describe_checkpoint, describe_onnx
from evovit_deploy.errors import CheckpointError, EvoVitError, ModelFileError
from evovit_deploy.recipes import load_recipe
from evovit_deploy.storage.files import sha256

TINY = "evo_deit_tiny_patch16_224"


def run(*arguments: str | Path) -> Any:
    """Result of the command; its errors are raised, as they are before the entry point turns them into exit codes."""
    app = typer.Typer()
    app.command()(inspect)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})
    if isinstance(result.exception, EvoVitError):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "tiny.pth"
    state = random_checkpoint(load_recipe(TINY)).state
    averaged = {key: tensor.half() for key, tensor in state.items()}
    torch.save({"model": state, "model_ema": averaged, "epoch": 12, "args": argparse.Namespace(model=TINY)}, path)
    return path


def save_onnx(path: Path, manifest: Any = None, dtype: int = TensorProto.FLOAT, external: str = "") -> Path:
    """images [batch, 4] -> MatMul -> Relu -> logits [batch, 2]."""
    weight = numpy_helper.from_array(torch.ones(4, 2).numpy(), "weight")
    if dtype == TensorProto.FLOAT16:
        weight = numpy_helper.from_array(torch.ones(4, 2).half().numpy(), "weight")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=external)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weight"], ["h"]), helper.make_node("Relu", ["h"], ["logits"])],
        "graph",
        # Old exporters list weights among the inputs.
        [
            helper.make_tensor_value_info("images", dtype, ["batch", 4]),
            helper.make_tensor_value_info("weight", dtype, [4, 2]),
        ],
        [helper.make_tensor_value_info("logits", dtype, ["batch", 2])],
        [weight],
    )
    model = helper.make_model(graph, producer_name="maker", opset_imports=[helper.make_opsetid("", 20)])
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        model.metadata_props.add(key="evovit", value=text)
    path.write_bytes(model.SerializeToString())
    return path


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "onnx",
        "name": TINY,
        "family": "evo_deit",
        "recipe": load_recipe(TINY).to_dict(),
        "precision": "fp16",
        "batch": 8,
        "input": "float32",
        "outputs": ["logits"],
        "selection": "sort",
        "opset": 20,
        "folded": True,
        "weights": {"source": "model", "random": False, "sha256": "00"},
        **changes,
    }


# Checkpoints


def test_checkpoint_as_json(checkpoint: Path) -> None:
    document = json.loads(run(checkpoint, "--json").stdout)
    expected = {
        "kind": "checkpoint",
        "path": str(checkpoint),
        "family": "evo_deit",
        "recipe": TINY,
        "size": "tiny",
        "image_size": 224,
        "patch_size": 16,
        "num_patches": 196,
        "embed_dim": 192,
        "num_heads": 3,
        "depth": 12,
        "num_classes": 1000,
        "stored_dtype": "float32",
        "source": "model",
        "epoch": 12,
        "sha256": sha256(checkpoint),
        "schedule": "stage",
        "stage_starts": [4, 8],
        "keep_ratios": [1.0] * 4 + [0.5] * 8,
        "tradeoff": [1.0] * 4 + [0.5] * 8,
        "args": {"model": TINY},
    }
    assert {key: document[key] for key in expected} == expected
    assert document["parameters"] == 5_717_416  # vanilla DeiT-Ti, to the parameter
    assert any("keep ratios" in note for note in document["notes"])


def test_groups_say_which_blocks_run_on_how_many_tokens(checkpoint: Path) -> None:
    assert describe(checkpoint)["groups"] == [
        {"first_block": 0, "last_block": 3, "patches": 196, "selects": False, "class_attention": [3]},
        {"first_block": 4, "last_block": 7, "patches": 98, "selects": True, "class_attention": [4, 5, 6, 7]},
        {"first_block": 8, "last_block": 11, "patches": 98, "selects": True, "class_attention": []},
    ]


def test_checkpoint_for_people(checkpoint: Path) -> None:
    text = run(checkpoint).stdout
    for fact in (TINY, "224 px", "196 patches", "1000", "5,717,416", "float32", "1 x4, 0.5 x8", "98 selected tokens"):
        assert fact in text
    assert "keep ratios (1, 0.5) and tradeoff come from recipe" in text


def test_averaged_weights(checkpoint: Path) -> None:
    document = json.loads(run(checkpoint, "--json", "--ema").stdout)
    assert (document["source"], document["stored_dtype"]) == ("model_ema", "float16")


def test_options_reach_the_loader(checkpoint: Path) -> None:
    document = json.loads(run(checkpoint, "--json", "--num-heads", "6").stdout)
    assert document["num_heads"] == 6
    document = json.loads(run(checkpoint, "--json", "--recipe", "evo_deit_small_patch16_224").stdout)
    assert document["recipe"] == "evo_deit_c192h3_patch16_224"


def test_random_checkpoint_has_no_file() -> None:
    document = describe_checkpoint(random_checkpoint(load_recipe(TINY)))
    assert (document["path"], document["sha256"], document["random"]) == (None, None, True)
    json.dumps(document)


def test_markup_in_a_checkpoint_is_text(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"model": load_checkpoint(checkpoint).state, "args": {"model": "[red]x[/nonsense]"}}, path)
    assert "[red]x[/nonsense]" in run(path).stdout


def test_unreadable_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        run(path, "--json")


def test_reference(reference: Path) -> None:
    document = json.loads(run(reference / "evo_deit_micro.pth", "--json").stdout)
    assert (document["num_heads"], document["num_patches"], document["epoch"]) == (2, 49, 299)


# ONNX


def test_foreign_onnx(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx")
    document = json.loads(run(path, "--json").stdout)
    assert document["kind"] == "onnx"
    assert document["exported_by_evovit"] is False
    assert document["manifest"] is None
    assert document["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 4]}]
    assert document["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 2]}]
    assert document["opsets"] == {"ai.onnx": 20}
    assert document["producer"] == "maker"
    assert document["nodes"] == {"MatMul": 1, "Relu": 1}
    assert document["parameters"] == {"float32": 8}
    assert document["precision"] == "fp32"
    assert document["sha256"] == sha256(path)
    assert any("not exported by evovit" in note for note in document["notes"])


def test_foreign_onnx_for_people(tmp_path: Path) -> None:
    text = run(save_onnx(tmp_path / "m.onnx")).stdout
    for fact in ("not exported by evovit", "images: float32 [batch, 4]", "MatMul", "8 float32", "ai.onnx 20"):
        assert fact in text
    assert "Token evolution" not in text


def test_half_precision_is_seen_in_the_weights(tmp_path: Path) -> None:
    document = describe_onnx(save_onnx(tmp_path / "m.onnx", dtype=TensorProto.FLOAT16))
    assert (document["precision"], document["parameters"]) == ("fp16", {"float16": 8})


def test_exported_onnx(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", manifest())
    (tmp_path / "m.json").write_text(json.dumps({**manifest(), "sha256": sha256(path), "parity": {"passed": True}}))
    document = json.loads(run(path, "--json").stdout)
    assert document["exported_by_evovit"] is True
    assert document["manifest"] == json.loads(json.dumps(manifest()))
    assert document["precision"] == "fp16"
    assert document["parity"] == {"passed": True}
    assert [group["patches"] for group in document["groups"]] == [196, 98, 98]
    assert document["notes"] == []
    text = run(path).stdout
    for fact in (TINY, "fp16", "sort", "98 selected tokens", "proven at export"):
        assert fact in text


def test_json_of_another_file_is_not_believed(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", manifest())
    (tmp_path / "m.json").write_text(json.dumps({**manifest(), "sha256": "other", "parity": {"passed": True}}))
    document = describe_onnx(path)
    assert document["parity"] is None
    assert any("m.json" in note and "another file" in note for note in document["notes"])


@pytest.mark.parametrize(("broken", "note"), [("{not json", "not JSON"), ({"schema": 99}, "schema"), ("[1]", "schema")])
def test_manifest_that_cannot_be_read(tmp_path: Path, broken: Any, note: str) -> None:
    document = describe_onnx(save_onnx(tmp_path / "m.onnx", broken))
    assert document["exported_by_evovit"] is False
    assert any(note in text for text in document["notes"])


def test_manifest_without_a_readable_recipe(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", manifest(recipe={"family": "swin"}))
    assert "groups" not in describe_onnx(path)
    assert "Token evolution" not in run(path).stdout


def test_missing_external_weights_are_named(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "m.onnx", external="m.data")
    assert any("m.data" in note for note in describe_onnx(path)["notes"])
    (tmp_path / "m.data").write_bytes(bytes(32))
    assert not any("m.data" in note for note in describe_onnx(path)["notes"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is not a model\n" * 20, "not an ONNX"),
        (b"\xff" * 100, "not an ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_corrupt_onnx(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        run(path)
    assert "bad.onnx" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_onnx(tmp_path: Path, share: float) -> None:
    path = save_onnx(tmp_path / "m.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelFileError, match="not an ONNX"):
        describe_onnx(path)


def test_missing_onnx_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        run(tmp_path / "nothing.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelFileError, match="is a folder"):
        run(tmp_path / "folder.onnx")


def test_empty_model_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    with pytest.raises(ModelFileError, match="no graph or no opset"):
        describe_onnx(path)

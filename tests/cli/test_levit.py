"""Evo-LeViT through the command line: export, inspect, verify, bad input."""

import json
from pathlib import Path

import pytest
import torch

from evovit_deploy import random_checkpoint
from tests.levit_reference import TINY

RECIPE = """
family = "evo_levit"
[structure]
image_size = 64
embed_dims = [16, 24]
key_dim = 8
num_heads = [2, 3]
depths = [2, 1]
[evolution]
full_blocks = 1
keep_ratios = [0.5, 0.5]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("levit") / "tiny.pth"
    torch.save({"model": dict(random_checkpoint(TINY).state)}, path)
    path.with_name("mine.toml").write_text(RECIPE)
    return path


def recipe(checkpoint: Path) -> tuple[str, str]:
    return "--recipe", str(checkpoint.with_name("mine.toml"))


def test_export_verify_inspect_predict(evovit, checkpoint, tmp_path):
    model = tmp_path / "model.onnx"
    code, out, _ = evovit(
        "export",
        checkpoint,
        "-o",
        model,
        *recipe(checkpoint),
        "--keep",
        "0.75,0.5",
        "--outputs",
        "logits,kept",
        "--json",
    )
    assert code == 0
    manifest = json.loads(out)
    assert manifest["family"] == "evo_levit"
    assert manifest["recipe"]["evolution"] == {"keep_ratios": [0.75, 0.5], "full_blocks": 1}
    code, out, _ = evovit("verify", checkpoint, model, "--json")
    assert code == 0
    assert json.loads(out)["jaccard"] == {"kept_1": 1.0, "kept_2": 1.0}
    code, out, _ = evovit("inspect", model)
    assert code == 0
    assert "stage 2, block 2" in out
    code, out, _ = evovit("inspect", checkpoint, *recipe(checkpoint))
    assert code == 0
    assert "Evo-LeViT" in out
    assert "16 / 24" in out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--schedule", "layer"), 2, "Evo-LeViT has the stage schedule only"),
        (("--keep", "0.5,0.5,0.5"), 2, "1 (for all groups) or 2 (one per group"),
        (("--keep", "0"), 2, "keep ratio 0 is impossible"),
        (("--keep", "0.01"), 2, "keeps no patch of 16"),
        (("--img-size", "100"), 2, "96 or 112"),
        (("--num-heads", "7"), 2, "valid: 2, 4, 8, 16"),
        (("--recipe", "evo_deit_small_patch16_224"), 1, "is an Evo-LeViT"),
    ],
)
def test_bad_options(evovit, checkpoint, tmp_path, options, code, words):
    given = options if "--recipe" in options else (*recipe(checkpoint), *options)
    found, _, err = evovit("export", checkpoint, "-o", tmp_path / "model.onnx", *given)
    assert found == code
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_vanilla_levit_is_named(evovit, tmp_path):
    path = tmp_path / "levit.pth"
    torch.save({"model": {"stages.0.blocks.0.attn.attention_biases": torch.zeros(4, 196)}}, path)
    code, _, err = evovit("export", path, "-o", tmp_path / "model.onnx")
    assert code == 1
    assert "evovit export --baseline levit_128s_224" in " ".join(err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["levit.pth"]


def test_the_twin_of_a_file_is_found(evovit, checkpoint, tmp_path):
    model = tmp_path / "model.onnx"
    assert evovit("export", checkpoint, "-o", model, *recipe(checkpoint), "--no-verify")[0] == 0
    code, out, _ = evovit(
        "bench", "--engine", model, "--batch", "1", "--min-seconds", "0", "--min-calls", "2", "--json"
    )
    assert code == 0
    report = json.loads(out)
    first, twin = report["subjects"]
    assert (first["label"], first["family"]) == ("model", "evo_levit")
    assert (twin["label"], twin["family"]) == (report["baseline"], "levit")
    assert report["baseline"].endswith(" twin")
    assert {row["subject"] for row in report["points"]} == {first["label"], twin["label"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.onnx"]

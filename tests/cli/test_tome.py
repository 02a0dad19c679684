"""Merged tokens through the command line: export, and every command after it; bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tests.shallow import NAME as SHALLOW

NAME = "test_vit"
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "test"
HOW = ("--from-timm", SHALLOW, "--method", "tome", "--r", "6,-1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes, 96 px, in timm's names: 36 patches, three blocks."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.pth"
    torch.save(timm.create_model(SHALLOW, pretrained=False, num_classes=10, img_size=96).state_dict(), path)
    return path


def test_export_and_what_comes_after(evovit: Callable[..., Any], weights: Path, tmp_path: Path) -> None:
    model, picture = tmp_path / "model.onnx", sorted((DIGITS / "3").iterdir())[0]
    outputs = ("--outputs", "logits,sources,sizes", "--input", "uint8")
    code, out, err = evovit(
        "export", "--from-timm", SHALLOW, "--weights", weights, *HOW[2:4], "--r", "5,-1", *outputs, "-o", model
    )
    assert code == 0, err
    assert "sources_2, sizes" in out  # the last block of a decreasing schedule merges nothing
    assert "what r 0 to 10 costs in accuracy" in err
    code, out, _ = evovit("inspect", model)
    assert code == 0
    assert "class token and 36 patch tokens, of which 10 are merged" in out
    code, out, err = evovit("verify", weights, model)
    assert code == 0, err
    assert "sources_2: same groups" in out
    assert "sources to see them" not in err
    plain = tmp_path / "plain.onnx"
    code, _, err = evovit("export", *HOW, "--weights", weights, "--no-verify", "-o", plain)
    assert code == 0, err
    code, _, err = evovit("verify", weights, plain)
    assert code == 0, err
    assert "groups of merged patches were not compared; export with --outputs logits,sources to see" in " ".join(
        err.split()
    )
    code, out, err = evovit("predict", model, picture, "--json")
    assert code == 0, err
    code, out, err = evovit("explain", model, picture, "-o", tmp_path / "explained", "--json")
    assert code == 0, err
    assert "class attention" not in err
    parts = json.loads(out)["summary"]["selections"]
    assert [part["tokens"] for part in parts] == [26, 21]
    code, _, err = evovit("package", "triton", model, "-o", tmp_path / "repository")
    assert code == 0, err
    config = " ".join(next((tmp_path / "repository").rglob("config.pbtxt")).read_text().split())
    assert 'name: "sources_1" data_type: TYPE_INT64' in config


def test_bench_beside_the_twin(evovit: Callable[..., Any], weights: Path) -> None:
    quick = ("--batch", "1", "--min-seconds", "0", "--min-calls", "2", "--backend", "pytorch", "--json")
    code, out, err = evovit("bench", weights, *HOW, *quick)
    assert code == 0, err
    assert "tome_shallow_vit" in out
    assert "tome_shallow_vit twin" not in out, "the twin is the ViT itself"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--r", "-1"), "r -1 is impossible"),
        (("--r", "nan"), "r nan is impossible"),
        (("--r", "1e400"), "r inf is impossible"),
        (("--r", "20"), "no token would be left. The largest r for all blocks is 16"),
        (("--r", "8,8,8"), "6 (one per block)"),
        (("--r", "8,2"), "slope from -1 to 1"),
        (("--keep", "0.5"), "which takes --r"),
        (("--schedule", "layer"), "block schedule only"),
        (("--outputs", "kept"), "valid: logits, probabilities"),
        (("--selection", "topk"), "merging is one GEMM"),
        (("--recipe", "evo_deit_tiny_patch16_224"), "takes one of tome_vit"),
        (("--method", "evo", "--r", "8"), "--r is not for timm ViT, evolved"),
    ],
)
def test_bad_options(evovit: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    method = () if "--method" in options else ("--method", "tome")
    code, _, err = evovit("export", "--from-timm", NAME, *method, *options, "-o", tmp_path / "m.onnx")
    assert code == 2
    assert words in " ".join(err.split())
    assert not (tmp_path / "m.onnx").exists()

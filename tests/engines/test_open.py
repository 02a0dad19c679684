"""`Engine.open`: which backend a file gets, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy import Engine
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines.ort.session import cuda_problem
from evovit_deploy.engines.registry import opener
from evovit_deploy.engines.trt import tensorrt
from evovit_deploy.errors import CheckpointError, EngineError, InputError, ModelFileError
from evovit_deploy.recipes import Evolution, Recipe, Structure
from tests.engines.foreign_onnx import make_onnx


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"gone\.onnx: no such file.*evovit export"):
        Engine.open(tmp_path / "gone.onnx")
    for folder in (tmp_path, "", "."):
        with pytest.raises(ModelFileError):
            Engine.open(folder)
    with pytest.raises(ModelFileError, match=r"gone\.plan: no such file.*evovit build .*gone\.onnx -o .*gone\.plan"):
        Engine.open(tmp_path / "gone.plan")
    with pytest.raises(ModelFileError, match=r"gone\.pth: no such file.*checkpoint"):
        Engine.open(tmp_path / "gone.pth")


@pytest.mark.parametrize("content", [b"", b"this is no protobuf", bytes(range(256))])
def test_corrupt_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.onnx"):
        Engine.open(path, provider="cpu")


def test_truncated_onnx(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        Engine.open(path, provider="cpu")


def test_unknown_backend_and_provider(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"'openvino' is unknown; valid: auto, onnxruntime, pytorch"):
        Engine.open(path, backend="openvino")
    with pytest.raises(EngineError, match=r"'tpu' is unknown; valid: auto, cpu, cuda"):
        Engine.open(path, provider="tpu")


def test_cuda_is_refused_without_a_gpu(tmp_path: Path) -> None:
    if cuda_problem() is None:
        pytest.skip("this machine has a usable GPU")
    path = make_onnx(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"cannot run on a GPU.*--provider cpu") as caught:
        Engine.open(path, provider="cuda")
    assert caught.value.exit_code == 4
    with Engine.open(path) as engine:  # auto takes the CPU
        assert engine.device == "cpu"


def test_without_a_driver_torch_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("ctypes.CDLL", missing)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cuda_problem() == "no usable NVIDIA GPU or driver was found"


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("m.pth", "pytorch"), ("m.SAFETENSORS", "pytorch"), ("a/m.engine", "tensorrt"), ("m.Plan", "tensorrt"),
        ("m.onnx", "onnxruntime"), ("m", "onnxruntime"),
    ],
)  # fmt: skip
def test_the_suffix_tells_the_backend(name: str, backend: str) -> None:
    assert opener(name).name == backend


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """C 48 with 3 heads, which nothing in the file says; its averaged weights are all zero."""
    ones = (1.0,) * 4
    structure = Structure(image_size=32, patch_size=8, embed_dim=48, depth=5, num_heads=3, num_classes=5)
    recipe = Recipe("odd", "evo_deit", structure, Evolution((*ones, 0.5), (*ones, 0.5), stage_starts=(4,)))
    state = random_checkpoint(recipe).state
    torch.save({"model": state, "model_ema": {k: torch.zeros_like(v) for k, v in state.items()}}, tmp_path / "odd.pth")
    (tmp_path / "odd.toml").write_text(
        'family = "evo_deit"\n[structure]\nimage_size = 32\npatch_size = 8\nembed_dim = 48\ndepth = 5\nnum_heads = 3\n'
        "num_classes = 5\n[evolution]\nstage_starts = [4]\nkeep_ratios = [1.0, 1.0, 1.0, 1.0, 0.25]\n"
        "tradeoff = [1.0, 1.0, 1.0, 1.0, 0.5]\n"
    )
    return tmp_path / "odd.pth"


def test_a_checkpoint_with_its_recipe_or_heads(checkpoint: Path) -> None:
    images = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with pytest.raises(CheckpointError, match="--num-heads"):
        Engine.open(checkpoint, provider="cpu")
    with Engine.open(checkpoint, provider="cpu", recipe=str(checkpoint.with_suffix(".toml"))) as engine:
        module: Any = engine.module  # type: ignore[attr-defined]
        assert module.structure.num_heads == 3
        assert engine(images)["logits"].any()
    with Engine.open(checkpoint, provider="cpu", recipe=str(checkpoint.with_suffix(".toml")), ema=True) as engine:
        assert not engine(images)["logits"].any()


def test_options_of_a_plan_reach_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.engine").touch()
    monkeypatch.setattr(tensorrt, "TrtEngine", lambda path, **options: (path, options))
    path = tmp_path / "m.engine"
    opened: Any = Engine.open(path, cuda_graphs=False, max_contexts=2, warm_up=(1, 8), runtime_cache=False, device=1)
    assert opened == (
        path,
        {"cuda_graphs": False, "max_contexts": 2, "warm_up": (1, 8), "runtime_cache": False, "device": 1},
    )
    assert Engine.open(path) == (path, {})  # the defaults are TrtEngine's


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.onnx", {"recipe": "evo_deit_tiny_patch16_224"}, "onnxruntime, and recipe is for checkpoints only"),
        ("m.engine", {"num_heads": 3, "ema": True}, "tensorrt, and num_heads, ema is for checkpoints only"),
        (
            "m.pth",
            {"cuda_graphs": False},
            "cuda_graphs is for ONNX files, TensorRT engines and inductor engines only",
        ),
        ("m.onnx", {"warm_up": (1,)}, "onnxruntime, and warm_up is for TensorRT engines only"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        Engine.open(tmp_path / name, **options)

"""Builds that cannot be: options, places and machines that do not fit."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.building import build as build_module
from evovit_deploy.building.build import build_engine
from evovit_deploy.engines.trt.api import Api, Gpu
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import EngineError, InputError, OutputError
from tests.trt_models import tiny_onnx

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = BuildOptions(target="tensorrt-rtx")


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        build_engine(tiny_onnx(), tmp_path / "m.engine", RTX, prove=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hardware_compatibility": "ampere+"}, InputError, "no option hardware_compatibility"),
        ({"version_compatible": True}, InputError, "no option version_compatible"),
        ({"tiling": "full"}, InputError, "no option tiling"),
        ({"compute_capabilities": ("9.0",)}, InputError, "cannot build for compute capability 9.0; valid: 7.5"),
        ({"precision": "fp32"}, InputError, "is fp16, and fp32 was asked for.*--precision fp32"),
        ({"workspace_mib": 1}, EngineError, "could not build .*workspace"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target="tensorrt-rtx", **options), prove=False)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="mkdir -p"):
        build_engine(tiny_onnx(), tmp_path / "none" / "m.engine", RTX)
    for name in (
        "m.onnx",
        "m.json",
        "m.pth",
        "m.safetensors",
        "m",
    ):  # no command would open it, and it may be a checkpoint
        with pytest.raises(InputError, match=r"m\.engine"):
            build_engine(tiny_onnx(), tmp_path / name, RTX, force=True)


def test_where_there_is_no_gpu_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_module, "find_gpu", lambda: None)
    result = build_engine(tiny_onnx(), tmp_path / "m.engine", RTX)
    assert result.parity is None
    assert result.notes == ("built, not run here: no usable GPU was found",)
    with pytest.raises(EngineError, match="needs a GPU to build with refit"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt-rtx", refit=True))
    full = Api(None, "tensorrt", "10.12.0")
    monkeypatch.setattr(build_module, "load_api", lambda flavour: full)
    with pytest.raises(EngineError, match="--target tensorrt-rtx"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt"))
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu(0, "NVIDIA L4", "8.9", 1))
    with pytest.raises(InputError, match="full TensorRT builds for the GPU it runs on"):
        build_engine(tiny_onnx(), tmp_path / "n.engine", BuildOptions(target="tensorrt", compute_capabilities=("8.6",)))


def test_a_gpu_that_rtx_does_not_run_on_is_named_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu(0, "NVIDIA H100", "9.0", 1))
    monkeypatch.setattr(build_module, "build_plan", lambda *_: pytest.fail("it was built"))
    for target in ("tensorrt-rtx", "auto"):
        monkeypatch.setattr(build_module, "pick_flavour", lambda target, gpu: "tensorrt-rtx")
        with pytest.raises(
            EngineError, match=r"does not run on NVIDIA H100 \(compute capability 9\.0\).*--target inductor"
        ):
            build_engine(tiny_onnx(), tmp_path / "m.engine", BuildOptions(target=target))
    assert not list(tmp_path.iterdir())


def test_rtx_builds_for_other_gpus_on_one_that_it_does_not_run_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build_module, "find_gpu", lambda: Gpu(0, "NVIDIA H100", "9.0", 1))
    api, gpu = build_module.check_target(BuildOptions(target="tensorrt-rtx", compute_capabilities=("8.9",)))
    assert api.rtx
    assert gpu is not None

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.engines.trt import engine_manifest
from evovit_deploy.engines.trt.api import Api, Gpu
from evovit_deploy.engines.trt.engine_manifest import (
    check_environment,
    check_file,
    describe_engine,
    read_header,
    read_manifest,
)
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import EngineError, ModelFileError
from evovit_deploy.storage.files import sha256

RTX, FULL = Api(None, "tensorrt-rtx", "1.7.1.116"), Api(None, "tensorrt", "10.12.0.36")
ADA, TURING, HOPPER = (Gpu(0, n, c, 1) for n, c in (("RTX 4090", "8.9"), ("T4", "7.5"), ("H200", "9.0")))


def make_plan(folder: Path, tag: bytes = b"vtrt", version: tuple[int, ...] = (1, 7, 1, 116), size: int = 100) -> Path:
    path = folder / "model.engine"
    path.write_bytes(struct.pack("<4sIQq4B", tag, 0, 2, size, *version) + bytes(size - 28))
    return path


def make_document(path: Path, api: Api = RTX, **changes: Any) -> dict[str, Any]:
    document = {
        "schema": 1,
        "kind": "engine",
        "name": "model",
        "flavour": api.flavour,
        "version": api.version,
        "plan": {"sha256": sha256(path), "bytes": path.stat().st_size},
        "onnx": {"file": "model.onnx", "sha256": "0"},
        "gpu": None,
        "compute_capabilities": [],
        "precision": "fp16",
        "batch": {"min": 1, "opt": 8, "max": 32},
        "io": {"input": {"name": "images", "dtype": "float32", "shape": [None, 3, 8, 8]}, "outputs": {}},
        "num_classes": 10,
        "model": None,
        "options": BuildOptions(target=api.flavour, max_batch=32).to_dict(),
    }
    document.update(changes)
    engine_manifest.manifest_path(path).write_text(json.dumps(document))
    return document


def test_the_header_tells_flavour_and_version(tmp_path: Path) -> None:
    header = read_header(make_plan(tmp_path))
    assert (header.flavour, header.version, header.bytes) == ("tensorrt-rtx", "1.7.1.116", 100)
    header = read_header(make_plan(tmp_path, b"ftrt", (10, 12, 0, 36)))
    assert (header.flavour, header.version, header.bytes) == ("tensorrt", "10.12.0.36", None)


def test_what_is_no_plan(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelFileError, match="should have 100 bytes and has 60"):
        check_file(path, None)
    for data in (b"", b"vtrt", b"PK\3\4" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(ModelFileError, match="not a TensorRT engine"):
            check_file(path, None)
    with pytest.raises(ModelFileError, match="no such file"):
        read_header(tmp_path / "none.engine")


def test_a_plan_without_manifest_is_described_by_itself(tmp_path: Path) -> None:
    document = describe_engine(make_plan(tmp_path))
    assert (document["flavour"], document["version"], document["manifest"]) == ("tensorrt-rtx", "1.7.1.116", None)
    assert "no manifest" in document["notes"][0]


def test_a_plan_that_is_not_the_one_described(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    document = make_document(path)
    assert read_manifest(path) == document
    check_file(path, document)
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="SHA-256 differs") as caught:
        check_file(path, document)
    assert str(caught.value).endswith(f"evovit build model.onnx -o {path} --target tensorrt-rtx --max-batch 32")
    path.write_bytes(data[:70])
    with pytest.raises(EngineError, match="has 70 bytes, and its manifest describes 100"):
        describe_engine(path)


def test_a_manifest_of_the_other_flavour(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    with pytest.raises(EngineError, match="is an engine of tensorrt-rtx, and its manifest says tensorrt"):
        check_file(path, make_document(path, FULL))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": "2", "kind": "engine"}',
        '{"schema": 1, "kind": "onnx"}',
        '{"schema": 1, "kind": "engine"}',
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    path = make_plan(tmp_path)
    assert read_manifest(path) is None
    engine_manifest.manifest_path(path).write_text(text)
    with pytest.raises(ModelFileError, match=r"model\.engine\.json.*Delete it"):
        read_manifest(path)


@pytest.mark.parametrize(
    "change", [{"plan": 3}, {"plan": {}}, {"options": {"batch": -1}}, {"options": []}, {"onnx": "m"}]
)
def test_a_damaged_manifest_is_no_crash(tmp_path: Path, change: dict[str, Any]) -> None:
    path = make_plan(tmp_path)
    make_document(path, **change)
    with pytest.raises(ModelFileError, match=r"model\.engine\.json is (damaged|incomplete).*Delete it"):
        read_manifest(path)


def test_a_manifest_of_a_newer_version(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    make_document(path, schema=2)
    with pytest.raises(EngineError, match=r"newer evovit-deploy.*schema 2.*knows 1.*Upgrade") as caught:
        read_manifest(path)
    assert caught.value.exit_code == 4


def refusal(path: Path, document: dict[str, Any] | None, api: Api, gpu: Gpu | None) -> str:
    with pytest.raises(EngineError) as caught:
        check_environment(path, document, check_file(path, document), api, gpu)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_an_environment_that_fits(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    for document in (None, make_document(path), make_document(path, compute_capabilities=["8.6", "8.9"])):
        check_environment(path, document, read_header(path), RTX, ADA)


def test_another_flavour_or_version(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    document = make_document(path)
    fix = f"Build it on this machine: evovit build model.onnx -o {path} --target tensorrt --max-batch 32"
    assert refusal(path, document, FULL, ADA).endswith(fix)
    newer = Api(None, "tensorrt-rtx", "1.8.0.5")
    assert "was built with version 1.7.1.116, and this is TensorRT-RTX 1.8.0.5" in refusal(path, document, newer, ADA)
    assert f"evovit build MODEL.onnx -o {path}" in refusal(path, None, newer, ADA)


def test_no_gpu(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    assert "needs an NVIDIA GPU with a working driver" in refusal(path, make_document(path), RTX, None)


def test_rtx_compute_capabilities(tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    assert refusal(path, make_document(path), RTX, TURING).endswith("--max-batch 32 --compute-capability 7.5")
    document = make_document(path, compute_capabilities=["12.0"])
    document["options"]["compute_capabilities"] = ["12.0"]
    text = refusal(path, document, RTX, ADA)
    assert "built for compute capability 12.0, and RTX 4090 is 8.9" in text
    assert text.endswith("--compute-capability 8.9")
    for listed in ([], ["9.0"]):
        text = refusal(path, make_document(path, compute_capabilities=listed), RTX, HOPPER)
        assert "TensorRT-RTX 1.7.1.116 does not run on H200 (compute capability 9.0)" in text
        assert "--target tensorrt or inductor" in text


@pytest.mark.parametrize(
    ("level", "gpu", "fits"),
    [
        ("none", ADA, True), ("none", HOPPER, False), ("same-compute-capability", TURING, False), ("ampere+", HOPPER, True),
        ("ampere+", TURING, False),
    ],
)  # fmt: skip
def test_full_tensorrt_is_bound_to_its_gpu(tmp_path: Path, level: str, gpu: Gpu, fits: bool) -> None:
    path = make_plan(tmp_path, b"ftrt", (10, 12, 0, 36))
    options = BuildOptions(target="tensorrt", hardware_compatibility=level).to_dict()
    document = make_document(path, FULL, compute_capabilities=["8.9"], gpu=ADA.to_dict(), options=options)
    if fits:
        check_environment(path, document, check_file(path, document), FULL, gpu)
    else:
        assert f"was built on RTX 4090 (8.9), and this is {gpu.name}" in refusal(path, document, FULL, gpu)


def test_version_compatible_plans_run_on_newer_versions_of_the_same_major(tmp_path: Path) -> None:
    path = make_plan(tmp_path, b"ftrt", (10, 12, 0, 36))
    options = BuildOptions(target="tensorrt", version_compatible=True).to_dict()
    document = make_document(path, FULL, options=options)
    header = check_file(path, document)
    check_environment(path, document, header, Api(None, "tensorrt", "10.14.1.5"), ADA)
    for version in ("10.11.0.1", "11.0.0.1"):
        assert "was built with version" in refusal(path, document, Api(None, "tensorrt", version), ADA)

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evovit_deploy import ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.engines import Engine
from evovit_deploy.loadtest.ray_faults import prepare_environment
from evovit_deploy.models.options import ModelOptions
from tests.exports import once

from .engines import NumberEngine
from .running import Running, always, running

prepare_environment()  # before any test imports Ray
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="session")
def digits_model(session_folder: Path) -> Path:
    """The demo's checkpoint as ONNX: uint8 images, every kind of output; made once a session."""
    path, checkpoint = session_folder / "serve" / "digits.onnx", DIGITS / "evo_deit_digits.pth"
    model = ModelOptions("fp32", "uint8", "topk", ("logits", "probabilities", "kept"))
    options = ExportOptions(model, prove=False)
    return once(path, lambda: export_onnx(load_checkpoint(checkpoint), path, options))


@pytest.fixture(scope="session")
def sums_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another tool: the sum of the pixels of each channel, so no export is needed."""
    path = tmp_path_factory.mktemp("model") / "sums.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["x", "axes"], ["sums"], keepdims=0),
        ],
        "sums",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 4, 4, 3])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(scope="module")
def digits(digits_model: Path) -> Iterator[Running]:
    """A service with the demo model, called ``digits``."""
    with running(
        lambda source, settings: Engine.open(digits_model, provider="cpu", threads=1),
        "digits",
        labels=DIGITS / "labels.txt",
    ) as service:
        yield service


@pytest.fixture
def numbers_engine() -> NumberEngine:
    return NumberEngine()


@pytest.fixture
def fake(numbers_engine: NumberEngine) -> Iterator[Running]:
    """A service with one :class:`NumberEngine`, called ``m``."""
    with running(always(numbers_engine), control=True) as service:
        yield service


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Something with the header and the manifest of a plan."""

    def make(tag: bytes = b"ftrt", batch: tuple[int, int, int] = (1, 8, 64), manifest: bool = True) -> Path:
        path = tmp_path / "small.engine"
        data = struct.pack("<4sIQq4B", tag, 1, 0, 56, 10, 13, 0, 1).ljust(56, b"\0")
        path.write_bytes(data)
        static = batch[0] if batch[0] == batch[2] else None
        document = {
            "schema": 1,
            "kind": "engine",
            "name": "small",
            "flavour": {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}[tag],
            "version": "10.13.0.1",
            "plan": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)},
            "onnx": {"file": "small.onnx"},
            "batch": dict(zip(("min", "opt", "max"), batch)),
            "options": {"compute_capabilities": []}
            | dict.fromkeys(("batch", "min_batch", "opt_batch", "max_batch", "precision"))
            | {"refit": False, "strip_plan": False},
            "compute_capabilities": ["9.0"],
            "gpu": None,
            "num_classes": 5,
            "precision": "fp16",
            "model": None,
            "io": {
                "input": {"name": "images", "dtype": "uint8", "shape": [static, 8, 8, 3]},
                "outputs": {"logits": [static, 5], "kept_1": [static, 3]},
            },
        }
        if manifest:
            path.with_name("small.engine.json").write_text(json.dumps(document))
        return path

    return make

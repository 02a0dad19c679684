"""Each check finds what it is for; engines that are wrong in one way each stand in for backends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy import Engine
from evovit_deploy.engines.cuda.device import CudaDevice
from evovit_deploy.engines.fake import FakeEngine
from evovit_deploy.engines.registry import find
from evovit_deploy.errors import EvoVitError, ParityError
from evovit_deploy.gpucheck import checks
from evovit_deploy.gpucheck.checks import CHECKS, NotHere, OpenModel
from evovit_deploy.recipes import Tolerance
from tests.engines.fake_cuda import FakeGpu
from tests.engines.fake_ort import Provider
from tests.engines.foreign_onnx import make_onnx, random_images

SIZE = 8


def right(images: Any) -> Any:
    return images.reshape(len(images), -1)[:, :10].astype(np.float32)


def trial(
    logits: Callable[[Any], Any] = right,
    again: Callable[..., Any] | None = None,
    backend: str = "onnxruntime",
    device: str = "cpu",
    graphs: bool = True,
) -> OpenModel:
    row = find(backend)
    assert row is not None
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 3, SIZE, SIZE), dtype=np.float32)
    engines = [FakeEngine(10, SIZE, logits=each) for each in (logits, right)]
    engines[0].cuda_graphs = graphs
    return OpenModel(row, engines[0], engines[1], images, again, Tolerance(1e-5, 0.999, 1.0, 1.0), device)


def wrong_in_batches(images: Any) -> Any:
    return right(images) + (len(images) == 3)


def wrong_between_threads() -> Callable[[Any], Any]:
    """Answers that are mixed up when two callers are in it at once."""
    inside, lock, both = [0], threading.Lock(), threading.Event()

    def logits(images: Any) -> Any:
        with lock:
            inside[0] += 1
            alone = inside[0] == 1
        if not alone:
            both.set()
        elif threading.current_thread() is not threading.main_thread():
            both.wait(5)
        with lock:
            inside[0] -= 1
        return right(images) + (not alone)

    return logits


def test_what_is_right_passes() -> None:
    it = trial(again=lambda **options: FakeEngine(10, SIZE, logits=right))
    said = {name: CHECKS[name](it) for name in ("parity", "batches", "threads", "reload")}
    assert said["batches"] == "batch 1: bit for bit, 3: bit for bit"
    assert said["reload"] == "3 times: bit for bit"
    assert "bit for bit" in said["threads"]
    assert "logits within 0.0e+00" in said["parity"]


@pytest.mark.parametrize(
    ("check", "it"),
    [
        ("parity", trial(lambda images: right(images) * 1.1)),
        ("batches", trial(wrong_in_batches)),
        ("threads", trial(wrong_between_threads())),
        ("reload", trial(again=lambda **options: FakeEngine(10, SIZE, logits=lambda images: right(images) + 1))),
        (
            "CUDA graphs",
            trial(
                again=lambda cuda_graphs=True: FakeEngine(10, SIZE, logits=lambda x: right(x) + cuda_graphs),
                backend="tensorrt",
                device="cuda",
            ),
        ),
    ],
)
def test_what_is_wrong_is_found(check: str, it: OpenModel) -> None:
    with pytest.raises(ParityError):
        CHECKS[check](it)


@pytest.mark.parametrize(
    ("check", "it", "why"),
    [
        ("streams", trial(), "no GPU"),
        ("CUDA graphs", trial(again=FakeEngine), "no GPU"),
        ("CUDA graphs", trial(again=FakeEngine, backend="pytorch"), "option"),
        ("CUDA graphs", trial(again=FakeEngine, device="cuda", graphs=False), "cannot be recorded"),
        ("reload", trial(), "module"),
    ],
)
def test_what_has_no_meaning_says_so(check: str, it: OpenModel, why: str) -> None:
    with pytest.raises(NotHere, match=why):
        CHECKS[check](it)


def test_streams_and_graphs_of_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    Provider(gpu).install(monkeypatch)
    monkeypatch.setattr(checks, "CudaDevice", gpu.device)
    path, row, images = make_onnx(tmp_path / "x.onnx"), find("onnxruntime"), random_images(8)
    assert row is not None
    with Engine.open(path) as engine:
        again = partial(Engine.open, path)
        it = OpenModel(row, engine, engine, images, again, Tolerance(1e-5, 0.999, 1.0, 1.0), "cuda")
        monkeypatch.setattr(OpenModel, "same", _same)
        assert [CHECKS[check](it) for check in ("streams", "CUDA graphs")] == ["bit for bit"] * 2
        monkeypatch.setattr(CudaDevice, "hand_over", lambda self, stream: None)
        with pytest.raises(AssertionError):
            CHECKS["streams"](it)


def _same(it: OpenModel, expected: Any, got: Any, where: str) -> str:
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, where)
    return "bit for bit"


def test_other_patches_at_a_near_tie_are_counted_and_the_rest_is_held_to_rounding() -> None:
    it = trial()
    expected = {"logits": np.zeros((100, 10), np.float32), "kept_1": np.tile(np.arange(100), (100, 1))}
    got = {name: value.copy() for name, value in expected.items()}
    got["logits"][0, 0], got["kept_1"][0, 0] = 5.0, 100  # one image, one patch of a hundred
    with pytest.raises(ParityError, match="kept_1"):
        it.same(expected, got, "here")
    lenient = OpenModel(it.row, it.engine, it.reference, it.images, None, Tolerance(1e-5, 0.999, 1.0, 0.99), "cpu")
    assert lenient.same(expected, got, "here") == "within 0.0e+00, other patches in 1"
    got["logits"][1, 0] = 1.0
    with pytest.raises(EvoVitError, match="error"):
        lenient.same(expected, got, "here")

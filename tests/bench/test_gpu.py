"""Calls on a GPU, with a device that is the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from evovit_deploy.bench.gpu import Pinned, end_to_end, same_staging
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import FakeEngine, TorchEngine
from evovit_deploy.errors import EngineError
from evovit_deploy.models.options import ModelOptions
from tests.bench.made import MICRO
from tests.engines.fake_trt import FakeDevice

OUTPUTS = ("logits", "kept")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)


def test_a_cpu_call_is_the_engine_itself(images: np.ndarray) -> None:
    fake = FakeEngine(image_size=32)
    end_to_end(fake, images)()
    assert fake.batches == [3]


@pytest.mark.parametrize(("device", "threads", "found"), [("cuda:0", 2, [2]), ("cuda:0", None, []), ("cpu", 2, [])])
def test_every_backend_copies_with_the_same_threads(
    device: str, threads: int | None, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    engines = [FakeEngine(), FakeEngine()]
    engines[1].device = device
    same_staging(engines, threads)
    assert asked == found


def test_pytorch_through_pinned_memory(images: np.ndarray) -> None:
    engine = TorchEngine.from_checkpoint(random_checkpoint(MICRO), ModelOptions(outputs=OUTPUTS), provider="cpu")
    call = end_to_end(engine, images, FakeDevice())
    assert isinstance(call, Pinned)
    for _ in range(2):
        call()
    for found, expected in zip(call.results, engine(images).values()):
        assert np.array_equal(found.numpy(), expected)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        call()

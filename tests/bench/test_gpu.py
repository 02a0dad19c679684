"""Calls on a GPU, with a device that is the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from evovit_deploy.bench.gpu import Pinned, end_to_end
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import FakeEngine, TorchEngine
from evovit_deploy.errors import EngineError
from evovit_deploy.models.options import ModelOptions
from tests.bench.test_work import recipe
from tests.engines.fake_trt import FakeDevice

OUTPUTS = ("logits", "kept")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)


def test_a_cpu_call_is_the_engine_itself(images: np.ndarray) -> None:
    fake = FakeEngine(image_size=32)
    end_to_end(fake, images)()
    assert fake.batches == [3]


def test_pytorch_through_pinned_memory(images: np.ndarray) -> None:
    engine = TorchEngine.from_checkpoint(random_checkpoint(recipe()), ModelOptions(outputs=OUTPUTS), provider="cpu")
    call = end_to_end(engine, images, FakeDevice())
    assert isinstance(call, Pinned)
    for _ in range(2):
        call()
    for found, expected in zip(call.results, engine(images).values()):
        assert np.array_equal(found.numpy(), expected)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        call()

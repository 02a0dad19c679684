from __future__ import annotations

import numpy as np
import pytest

from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import EngineError, InputError


def test_the_answer_tells_the_image() -> None:
    engine = FakeEngine(num_classes=10, image_size=4)
    images = np.zeros((3, 3, 4, 4), np.float32)
    images[:, 0, 0, 0] = (4, 7, 13)
    result = engine(images)
    assert list(result) == ["logits"]
    assert result["logits"].dtype == np.float32
    assert result["logits"].argmax(1).tolist() == [4, 7, 3]
    np.testing.assert_array_equal(result["logits"], engine(images)["logits"])


def test_uint8_images_and_shape_check() -> None:
    engine = FakeEngine(num_classes=7, image_size=4, image_input="uint8")
    images = np.full((1, 4, 4, 3), 255, np.uint8)
    assert engine(images)["logits"].argmax(1).tolist() == [48 * 255 % 7]  # no overflow in eight bits
    with pytest.raises(InputError, match=r"\[B, 4, 4, 3\], not \[1, 3, 4, 4\]"):
        engine(np.zeros((1, 3, 4, 4), np.uint8))


def test_batches_are_split_and_recorded() -> None:
    engine = FakeEngine(image_size=4, max_batch=4)
    images = np.zeros((10, 3, 4, 4), np.float32)
    images[:, 0, 0, 0] = np.arange(10)
    assert engine(images)["logits"].argmax(1).tolist() == list(range(10))
    assert engine.batches == [4, 4, 2]


def test_latency_number_and_sequence_on_a_clock_of_the_test() -> None:
    slept: list[float] = []
    image = np.zeros((1, 3, 8, 8), np.float32)
    engine = FakeEngine(latency=0.25, sleep=slept.append)
    engine(image)
    engine(image)
    assert slept == [0.25, 0.25]
    slept.clear()
    engine = FakeEngine(latency=[0.1, 0.0, 0.3], sleep=slept.append)
    for _ in range(5):
        engine(image)
    assert slept == [0.1, 0.3]  # nothing is slept for 0, nor after the end


def test_own_logits() -> None:
    engine = FakeEngine(num_classes=2, logits=lambda images: np.tile(np.float32([1, 2]), (len(images), 1)))
    assert engine(np.zeros((2, 3, 8, 8), np.float32))["logits"].tolist() == [[1, 2], [1, 2]]


def test_failures_can_be_injected() -> None:
    def fail() -> None:
        raise EngineError("out of memory")

    engine = FakeEngine(fail=fail)
    with pytest.raises(EngineError, match="out of memory"):
        engine(np.zeros((1, 3, 8, 8), np.float32))
    assert engine.batches == []


def test_a_closed_engine_answers_no_more() -> None:
    with FakeEngine() as engine:
        engine(np.zeros((1, 3, 8, 8), np.float32))
    engine.close()
    with pytest.raises(EngineError, match="fake is closed"):
        engine(np.zeros((1, 3, 8, 8), np.float32))
    assert engine.batches == [1]
    with pytest.raises(EngineError, match="fake is closed"):
        engine.submit(np.zeros((1, 3, 8, 8), np.float32))

"""Settings that make no sense, and models that cannot be compared, are refused with a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from evovit_deploy.bench import Settings, benchmark
from evovit_deploy.engines import FakeEngine
from evovit_deploy.errors import InputError


def engine(clock: Any, latency: float, **other: Any) -> FakeEngine:
    return FakeEngine(latency=latency, sleep=clock.advance, **other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": ()}, "numbers from 1"),
        ({"batches": (0,)}, "numbers from 1"),
        ({"batches": (2, 2)}, "different numbers"),
        ({"min_calls": 0}, "at least 0 and 1"),
        ({"max_seconds": 1}, "below min_seconds"),
        ({"streams": (0,)}, "streams"),
        ({"rate": 0.0}, "above 0"),
        ({"arrivals": "bursts"}, "poisson, constant"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**changes)


def test_a_baseline_that_is_not_there(clock: Any) -> None:
    with pytest.raises(InputError, match="'c' is not among the engines: a, b"):
        benchmark({"a": engine(clock, 1), "b": engine(clock, 1)}, baseline="c", clock=clock)


def test_models_with_other_images_are_refused(clock: Any) -> None:
    with pytest.raises(InputError, match="image size 8 and 16"):
        benchmark({"a": engine(clock, 1), "b": engine(clock, 1, image_size=16)}, clock=clock)
    with pytest.raises(InputError, match="input type float32 and uint8"):
        benchmark({"a": engine(clock, 1), "b": engine(clock, 1, image_input="uint8")}, clock=clock)
    with pytest.raises(InputError, match="nothing to measure"):
        benchmark({}, clock=clock)


def test_batches_that_would_be_padded_or_split_are_refused(clock: Any) -> None:
    static = engine(clock, 1)
    static.spec = dataclasses.replace(static.spec, batch=4)
    with pytest.raises(InputError, match="batches of 4 only, not 1"):
        benchmark({"a": static}, Settings(batches=(1, 4)), clock=clock)
    with pytest.raises(InputError, match="at most 4 images in one run, not 8"):
        benchmark({"a": engine(clock, 1, max_batch=4)}, Settings(batches=(1, 8)), clock=clock)


def test_batches_below_a_profile_are_refused(clock: Any) -> None:
    class Profiled(FakeEngine):
        min_batch = 4

    with pytest.raises(InputError, match="at least 4 images in one run, not 2"):
        benchmark({"a": Profiled()}, Settings(batches=(2, 4)), clock=clock)

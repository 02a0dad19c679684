"""Latency under load, against queues whose waiting times are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from evovit_deploy.bench.pacing import arrival_times, paced
from evovit_deploy.bench.report import Paced
from evovit_deploy.bench.settings import Settings


def queue(clock: Any, service: Iterable[float], **settings: Any) -> Paced:
    steps: Iterator[float] = iter(service)
    return paced(lambda: clock.advance(next(steps)), "a", 1, Settings(**settings), clock=clock, sleep=clock.advance)


def test_arrivals() -> None:
    assert arrival_times(4, 3, "constant", 0).tolist() == [0, 0.25, 0.5]
    gaps = np.diff(arrival_times(50, 20_000, "poisson", 3))
    assert gaps.mean() == pytest.approx(0.02, rel=0.03)
    assert gaps.std() == pytest.approx(0.02, rel=0.03)  # exponential: as wide as its mean
    assert np.array_equal(arrival_times(50, 9, "poisson", 3), arrival_times(50, 9, "poisson", 3))


def test_constant_arrivals_below_capacity_do_not_wait(clock: Any) -> None:
    found = queue(clock, itertools.repeat(0.008), rate=100.0, arrivals="constant", min_seconds=2)
    assert found.latency.max_ms == pytest.approx(8)
    assert found.latency.samples == 200
    assert found.busy == pytest.approx(0.8, rel=0.01)
    assert not found.overloaded


def test_poisson_arrivals_wait_as_queueing_theory_says(clock: Any) -> None:
    """M/D/1 at load 0.7: mean wait = load / (2 (1 - load)) service times."""
    found = queue(clock, itertools.repeat(0.007), rate=100.0, min_seconds=600, max_seconds=1e9)
    assert found.latency.mean_ms == pytest.approx(7 * (1 + 0.7 / (2 * 0.3)), rel=0.03)
    assert found.busy == pytest.approx(0.7, rel=0.02)
    assert found.achieved == pytest.approx(100, rel=0.02)


def test_one_slow_answer_delays_those_behind_it(clock: Any) -> None:
    """The clock runs from when a request was due: a stop of 1 s hits the hundred requests that came meanwhile."""
    service = itertools.chain([0.001] * 100, [1.0], itertools.repeat(0.001))
    found = queue(clock, service, rate=100.0, arrivals="constant", min_seconds=10)
    assert found.latency.p90_ms > 50
    assert found.latency.p50_ms == pytest.approx(1)


def test_overload_is_marked_and_ends(clock: Any) -> None:
    found = queue(clock, itertools.repeat(0.02), rate=100.0, arrivals="constant", min_seconds=10, max_seconds=12)
    assert found.overloaded
    assert found.achieved == pytest.approx(50, rel=0.01)
    assert found.latency.samples < 1000
    assert found.busy == pytest.approx(1, rel=0.01)

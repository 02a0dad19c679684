"""The service under more load than it can take and with faults: counts, never times."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from evovit_deploy.loadtest.faults import SCENARIOS, Scenario, storm_broken
from evovit_deploy.loadtest.overload import hot_swap, overload
from evovit_deploy.loadtest.storms import deadline_storms, disconnect_storms
from evovit_deploy.loadtest.tally import total

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "hot swap"])
def test_every_request_is_answered_or_refused_and_none_is_lost_or_crossed(name: str, forked: None) -> None:
    run = partial(overload, "http", 2_000) if name == "overload over HTTP" else SCENARIOS[name].run
    counts = asyncio.run(run())  # type: ignore[arg-type]
    assert SCENARIOS[name].broken(counts) == [], counts
    if name == "overload over HTTP":
        assert counts["requests"] == 2_000 == counts["answered"] + counts["refused"]
        assert counts["refused"] > 0
        assert counts["images_run"] == counts["answered"]


def test_a_hot_swap_loses_nothing(forked: None) -> None:
    counts = asyncio.run(hot_swap(requests=1_000, swaps=3))
    assert SCENARIOS["hot swap"].broken(counts) == [], counts
    assert counts["swaps"] == 3
    assert counts["engines_that_answered"] > 1


@pytest.mark.parametrize("storms", [deadline_storms, disconnect_storms])
def test_storms_leave_an_empty_queue_and_flat_memory(storms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evovit_deploy.loadtest.storms.LOOK", 0.03)
    counts = asyncio.run(partial(storms, storms=7, requests=200)())
    assert storm_broken(counts) == [], counts
    assert counts["late"] + counts["turned_away"] > 0


def test_what_does_not_hold_is_said() -> None:
    scenario = Scenario(hot_swap, {"queued_after": 0})
    good = {**total(["answered", "refused"]), "queued_after": 0}
    assert scenario.broken(good) == []
    assert scenario.broken({**total(["lost"]), "queued_after": 2}) == [
        "lost is 1, not 0",
        "queued_after is 2, not 0",
        "nothing was answered",
    ]
    calm = {
        **total(["late"]),
        "queued_after": 0,
        "answers_afterwards": True,
        "growth_mib": 1,
        "sent_in_second_half_mib": 50,
    }
    assert storm_broken(calm) == []
    assert storm_broken({**calm, "growth_mib": 6}) == ["memory grew by 6 MiB"]

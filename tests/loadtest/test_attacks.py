"""What `bench serve --attack` runs, smaller: nothing of it stops the service. Times are for a quiet machine, not for a test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from evovit_deploy.loadtest import attackers, attacks
from evovit_deploy.loadtest.attackers import ATTACKERS
from evovit_deploy.loadtest.attacks import attack, broken


@pytest.mark.parametrize("name", list(ATTACKERS))
def test_nothing_stops_the_service(name: str, forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "GOOD", 10)
    monkeypatch.setattr(attackers, "SENDING", 0.3)
    monkeypatch.setitem(attacks.SETTINGS, "drain", 1)
    counts = asyncio.run(attack(ATTACKERS[name], 2))
    assert broken(counts, timed=False) == []
    assert counts["requests"] == 16
    assert counts["live_asked"] > 0


def test_what_does_not_hold_is_said() -> None:
    names = ("crossed", "lost", "failed", "late", "other", "unanswered_before_or_after", "live_failed", "exit_code")
    good: dict[str, Any] = dict.fromkeys(names, 0) | {"peak_mib": 1, "bound_mib": 2, "live_worst_s": 0.1, "stop_s": 1.0}
    assert broken(good) == []
    for change in ({"lost": 1}, {"live_failed": 2}, {"exit_code": 1}, {"peak_mib": 3}):
        assert len(broken(good | change, timed=False)) == 1
    for change in ({"live_worst_s": 0.6}, {"stop_s": 7.1}):
        assert broken(good | change, timed=False) == []
        assert len(broken(good | change)) == 1

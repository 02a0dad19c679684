"""Measurements as short as they can be, where what is measured is not what is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def install(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Shorten every measurement in this process.

    Args:
        put: As ``setattr``; that of ``monkeypatch`` takes it back.
    """
    from evovit_deploy.bench import session
    from evovit_deploy.bench.settings import Settings
    from evovit_deploy.loadtest.results import SpeedSettings

    check = Settings.__post_init__

    def short(self: Settings) -> None:
        check(self)
        limits = {"min_seconds": 0.1, "min_calls": 6, "max_seconds": 0.1, "warmup_seconds": 0.0, "warmup_calls": 1}
        for name, value in limits.items():
            object.__setattr__(self, name, value)

    real: Any = SpeedSettings.__init__

    def brief(self: SpeedSettings, *values: Any, **named: Any) -> None:
        real(self, *values, **{"turn": 0.05, **named})

    put(Settings, "__post_init__", short)
    put(SpeedSettings, "__init__", brief)
    put(session, "_peaks", lambda report: ())  # what the machine reaches
    one_thread(put)


def one_thread(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let what measures have one thread where nobody says how many.

    The models here are small, and a second thread of PyTorch waits for the first, busily, in every layer; where workers share the
    cores that costs ten times as much, and PyTorch would keep the threads for all tests that follow.

    Args:
        put: As for :func:`install`.
    """
    from evovit_deploy.bench import runs
    from evovit_deploy.machine import facts

    for module in (facts, runs):
        put(module, "physical_cores", lambda: 1)

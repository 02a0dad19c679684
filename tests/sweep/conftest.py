"""What the sweeps of the shipped checkpoint run on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.sweep.runner import SweepSettings

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements as short as they get, and a cache of its own."""
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    real: Any = SweepSettings.__init__

    def brief(self: SweepSettings, **options: Any) -> None:
        real(self, **(options | {"min_seconds": 0.01, "min_calls": 6}))

    monkeypatch.setattr(SweepSettings, "__init__", brief)


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Two test images of every digit."""
    for folder in (DIGITS / "test").iterdir():
        (tmp_path / "some" / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:2]:
            shutil.copy(image, tmp_path / "some" / folder.name)
    return tmp_path / "some"

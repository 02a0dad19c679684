"""Fixtures of the checkpoint tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from .forms import evo_deit


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return evo_deit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pth"

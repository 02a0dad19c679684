"""What the sweeps of the shipped checkpoint run on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evovit_deploy import load_checkpoint
from evovit_deploy.sweep.runner import SweepSettings
from tests import measuring

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SHALLOW = """
family = "evo_deit"
[structure]
image_size = 64
patch_size = 8
embed_dim = 64
depth = 3
num_heads = 1
num_classes = 10
pool = "patches"
[evolution]
keep_ratios = [1, 0.5, 0.5]
tradeoff = [1, 0.5, 0.5]
stage_starts = [1, 2]
"""


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first three blocks of the shipped checkpoint, which know most digits, and their recipe: exports cost by the block."""
    state = {}
    for name, tensor in load_checkpoint(DIGITS / "evo_deit_digits.pth").state.items():
        block = re.match(r"[a-z0-9]+\.(\d+)\.", name)
        if block is None or int(block[1]) < 3:
            state[name] = tensor
    folder = tmp_path_factory.mktemp("shallow")
    torch.save({"model": state}, folder / "digits.pth")
    (folder / "digits.toml").write_text(SHALLOW)
    return folder / "digits.pth", folder / "digits.toml"


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements as short as they get, and a cache of its own."""
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    real: Any = SweepSettings.__init__

    def brief(self: SweepSettings, **options: Any) -> None:
        real(self, **(options | {"min_seconds": 0.01, "min_calls": 6}))

    monkeypatch.setattr(SweepSettings, "__init__", brief)
    measuring.install(monkeypatch.setattr)


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Two test images of every digit."""
    for folder in (DIGITS / "test").iterdir():
        (tmp_path / "some" / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:2]:
            shutil.copy(image, tmp_path / "some" / folder.name)
    return tmp_path / "some"

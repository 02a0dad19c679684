"""A model of four classes that looks at the red of an image, and images painted for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.classes.labels import ClassNames
from evovit_deploy.engines import FakeEngine
from evovit_deploy.evaluate.runner import Subject

CLASSES, SIZE = 4, 8
NAMES = ClassNames([()] * CLASSES)


def red_logits(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[B, S, S, 3] uint8 -> class = red value / 10; the next classes follow."""
    winner = np.round(images[:, SIZE // 2, SIZE // 2, 0] / 10).astype(int)
    return -((np.arange(CLASSES)[None] - winner[:, None]) % CLASSES).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EVOVIT_CACHE", str(folder))
    return folder / "eval"


@pytest.fixture
def paint(tmp_path: Path) -> Callable[[str, int], Path]:
    """Save an image of a class."""

    def save(name: str, number: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE), (number * 10, 0, 0)).save(path)
        return path

    return save


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Subject]:
    """Make a subject; every one is another file."""
    count = iter(range(100))

    def make(logits: Callable[[Any], Any] = red_logits, num_classes: int = CLASSES, **options: Any) -> Subject:
        path = tmp_path_factory.mktemp("models") / "m.onnx"
        path.write_text(f"model {next(count)}")
        return Subject(FakeEngine(num_classes, SIZE, image_input="uint8", logits=logits, **options), path)

    return make

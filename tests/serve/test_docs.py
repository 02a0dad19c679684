"""The examples of docs/production.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy.engines import Engine

from .engines import NumberEngine, images, numbers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "production.md"


def definitions(first: str) -> dict[str, Any]:
    """What the code block that begins with this comment defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [block] = [block for block in blocks if block.startswith(f"# {first}")]
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def example(first: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same, with a fake engine behind ``Engine.open``."""
    monkeypatch.setattr(Engine, "open", staticmethod(lambda path: NumberEngine()))
    return definitions(first)


def test_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[int, list[int]]] = []
    jobs = ((number, images(number, number + 1)) for number in range(80))
    work = example("worker", monkeypatch)["work"]
    work(jobs, lambda job, logits: found.append((job, numbers({"logits": logits}))))
    assert found == [(number, [number, number + 1]) for number in range(80)]


def test_video(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    frames = (images(number)[0] for number in range(200))
    example("video", monkeypatch)["watch"](frames, lambda logits: shown.append(int(logits[0])))
    assert shown
    assert shown == sorted(set(shown))
    assert set(shown) <= set(range(200))


def test_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    testclient = pytest.importorskip("fastapi.testclient", reason="FastAPI is not among the development packages")
    app = example("fastapi", monkeypatch)["app"]
    with testclient.TestClient(app) as client:
        answer = client.post("/logits", content=images(3, 4).tobytes())
        assert answer.status_code == 200
        assert np.array(answer.json())[:, 0].tolist() == [3, 4]
        for body in (b"x", b"", images(3).tobytes()[:-1]):
            assert client.post("/logits", content=body).status_code == 400

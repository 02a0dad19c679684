"""Engines among the subjects of a benchmark, with a stand-in for the engine, as none runs here."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.bench.subjects import Opening
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.errors import InputError
from evovit_deploy.recipes import load_recipe


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def open_(path: Path, **options: Any) -> FakeEngine:
        engine = FakeEngine()
        engine.backend = "tensorrt-rtx"
        recipe = load_recipe("evo_deit_small_patch16_224").to_dict()
        engine.spec = dataclasses.replace(engine.spec, name=path.stem, manifest={"recipe": recipe})
        return engine

    monkeypatch.setattr(Engine, "open", staticmethod(open_))
    for name in ("evo.engine", "twin.plan"):
        (tmp_path / name).touch()
    with ExitStack() as stack:
        yield Opening(stack, tmp_path, "auto", "auto", 1)


def test_an_engine_and_its_twin_from_a_file(opening: Opening, tmp_path: Path) -> None:
    assert opening.file(tmp_path / "evo.engine") == "evo"
    assert opening.baseline(str(tmp_path / "twin.plan")) == "twin"
    assert [engine.backend for engine in opening.engines.values()] == ["tensorrt-rtx"] * 2


def test_an_engine_is_never_held_against_another_backend(opening: Opening, tmp_path: Path) -> None:
    opening.file(tmp_path / "evo.engine")
    assert opening.baseline("auto") is None
    assert "no baseline: evo is an engine, whose twin is to be built" in opening.notes[0]
    with pytest.raises(InputError, match=r"twin of a tensorrt-rtx engine is not built here.*--baseline FILE"):
        opening.baseline("twin")
    assert list(opening.engines) == ["evo"]

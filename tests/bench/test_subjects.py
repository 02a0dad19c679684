"""Engines among the subjects of a benchmark, with a stand-in for the engine, as none runs here."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.bench.route import Route
from evovit_deploy.bench.subjects import Opening
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.recipes import load_recipe


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def open_(path: Path, **options: Any) -> FakeEngine:
        engine = FakeEngine()
        engine.backend = "tensorrt-rtx"
        recipe = load_recipe("evo_deit_small_patch16_224").to_dict()
        exported = {
            "recipe": recipe,
            "precision": "fp16",
            "input": "float32",
            "folded": True,
            "batch": None,
            "opset": 20,
        }
        engine.spec = dataclasses.replace(engine.spec, name=path.stem, manifest=exported)
        return engine

    monkeypatch.setattr(Engine, "open", staticmethod(open_))
    for name in ("evo.engine", "twin.plan"):
        (tmp_path / name).touch()
    with ExitStack() as stack:
        yield Opening(stack, tmp_path, Route(threads=1, batches=(1,)))


def test_an_engine_and_its_twin_from_a_file(opening: Opening, tmp_path: Path) -> None:
    assert opening.file(tmp_path / "evo.engine") == "evo"
    assert opening.baseline(str(tmp_path / "twin.plan")) == "twin"
    assert [one.engine.backend for one in opening.subjects.values()] == ["tensorrt-rtx"] * 2


@pytest.mark.parametrize(("classes", "said"), [(7, "7 classes"), (None, "")])
def test_a_baseline_of_other_classes_is_said(
    classes: int | None, said: str, opening: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening.file(tmp_path / "evo.engine")
    open_ = Engine.open

    def other(path: Path, **options: Any) -> Engine:
        engine = open_(path, **options)
        if classes is not None:
            engine.spec = dataclasses.replace(engine.spec, num_classes=classes)
        return engine

    monkeypatch.setattr(Engine, "open", staticmethod(other))
    opening.baseline(str(tmp_path / "twin.plan"))
    count = opening.subjects["evo"].engine.spec.num_classes
    assert opening.notes == ([f"twin gives scores of {said}, evo of {count}: not the same work"] if said else [])


def test_the_twin_of_an_engine_is_built_by_the_same_tensorrt(opening: Opening, tmp_path: Path) -> None:
    opening.file(tmp_path / "evo.engine")
    route = opening.route.like(opening.subjects["evo"].engine)
    assert route.backend == "tensorrt-rtx"
    assert route.export is not None
    assert (route.export.model.precision, route.export.model.fold, route.export.batch) == ("fp16", True, None)

"""Merged tokens drawn as groups: what is counted, drawn and written, from a checkpoint and from a file, one against the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evovit_deploy.engines import OrtEngine, TorchEngine
from evovit_deploy.errors import InputError
from evovit_deploy.explain import explain
from evovit_deploy.explain.drawing import OUTLINE, draw, panel_size
from evovit_deploy.explain.maps import Explainer, Look, Merged
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from tests.timm_models import images_for, merging_of, timm_model

FAMILY = "vit_small_patch16_224"
CHECKPOINT = merging_of(FAMILY, (4, 4, 4, 4))
OUTPUTS = ModelOptions(outputs=("logits", "sources"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
    return path


def test_groups_are_those_of_the_model() -> None:
    engine = TorchEngine.from_checkpoint(CHECKPOINT, OUTPUTS, provider="cpu")
    images = images_for(timm_model(FAMILY)).numpy()
    looks = Explainer(engine)(images)
    assert [part.count for part in looks[0].selections] == [32, 28, 24, 20]
    sources = engine(images)["sources_4"]
    assert looks[1].selections[3].listed == sources[1].tolist()
    sizes = np.bincount(sources[1])
    assert np.array_equal(looks[1].selections[3].marked, sizes[sources[1]] > 1)


def test_a_group_has_its_mean_colour_and_a_line_around_it() -> None:
    base = np.zeros((320, 320, 3), np.uint8)
    base[:160, :160] = 100  # two by two patches of 160 pixels
    base[:160, 160:] = 200
    look = Look((Merged(2, np.array([5, 5, 7, 8])),), None)
    _, panel = draw(base, look)
    assert panel.caption == "merge 1: 4 patches in 3 tokens"
    assert panel.pixels[80, 80].tolist() == panel.pixels[80, 240].tolist() == [150] * 3
    assert panel.pixels[240, 80].tolist() == [0] * 3, "a patch alone is as it was"
    assert panel.pixels[160, 80].tolist() == list(OUTLINE)
    assert panel.pixels[80, 160].tolist() == [150] * 3, "no line within a group"
    other = Look((Merged(2, np.array([5, 6, 7, 7])),), None)
    assert draw(base, look, other)[1].caption.endswith("0 alike in both")


def test_explain_a_file_against_its_checkpoint(picture: Path, tmp_path: Path) -> None:
    checkpoint = merging_of(FAMILY, (4, 4))
    path = export_onnx(checkpoint, tmp_path / "m.onnx", ExportOptions(OUTPUTS, prove=False)).path
    with (
        OrtEngine(path, provider="cpu") as engine,
        TorchEngine.from_checkpoint(checkpoint, OUTPUTS, provider="cpu") as reference,
    ):
        result = explain(engine, [picture], tmp_path / "out", reference=reference)
    parts = result.summary["selections"]
    assert [(part["name"], part["tokens"], part["identical"]) for part in parts] == [
        ("sources_1", 32, 1),
        ("sources_2", 28, 1),
    ]
    assert result.summary["overlap"] == []
    assert len(result.images[0]["sources"]) == 2


def test_three_of_four_merges_are_drawn(picture: Path, tmp_path: Path) -> None:
    with TorchEngine.from_checkpoint(CHECKPOINT, OUTPUTS, provider="cpu") as engine:
        result = explain(engine, [picture], tmp_path / "out", reference=engine)
    parts = result.summary["selections"]
    assert [(part["name"], part["tokens"]) for part in parts] == [
        ("sources_1", 32),
        ("sources_2", 28),
        ("sources_3", 24),
        ("sources_4", 20),
    ]
    assert len(result.images[0]["sources"]) == 4
    page = result.gallery.read_text(encoding="utf-8")
    assert "mean colour" in page
    assert "Class attention" not in page
    assert [f"merge {number}:" in page for number in (1, 2, 3, 4)] == [False, True, True, True], "three are drawn"
    assert panel_size(96) == 384


def test_a_model_that_tells_no_sources(tmp_path: Path, picture: Path) -> None:
    engine = TorchEngine.from_checkpoint(CHECKPOINT, ModelOptions(), provider="cpu")
    with pytest.raises(InputError, match="logits,sources"):
        explain(engine, [picture], tmp_path / "out")

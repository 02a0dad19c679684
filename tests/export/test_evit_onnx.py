"""EViT exported: the authors' outputs in ONNX Runtime, and half precision and uint8 images proven on the spot."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy import Engine, ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.evit_recipe import Fusion
from tests.models.test_evit import FAMILIES, kept_of, small

TWICE = Fusion((1.0, 0.6, 0.5), (1, 2))
DROPPED = dataclasses.replace(TWICE, fuse=False)


def test_the_authors_model(reference: Path, tmp_path: Path) -> None:
    """From end to end with a fused token, unfolded; without one too in PyTorch: tests/models/test_evit.py."""
    data, checkpoint = np.load(reference / "evit_micro.npz"), load_checkpoint(reference / "evit_micro.pth")
    recipe = dataclasses.replace(checkpoint.recipe, evolution=Fusion.at(12, (3, 6, 9), 0.7, True))
    options = ExportOptions(ModelOptions(selection="rank", outputs=("logits", "kept"), fold=False), prove=False)
    path = export_onnx(dataclasses.replace(checkpoint, recipe=recipe), tmp_path / "m.onnx", options).path
    with Engine.open(path, provider="cpu") as engine:
        for some in (slice(None), slice(0, 1)):
            got = engine(data["images"][some])
            assert np.abs(got["logits"] - data["logits"][some]).max() <= 1e-5
            for number, kept in enumerate(kept_of(data, True), 1):
                assert np.array_equal(got[f"kept_{number}"], kept[some])


@pytest.mark.parametrize(
    ("evolution", "how"),
    [
        (TWICE, {"precision": "fp16", "image_input": "uint8", "selection": "sort"}),
        (TWICE, {"precision": "bf16", "selection": "topk"}),
        (DROPPED, {"precision": "fp16", "selection": "onehot", "outputs": ("logits", "probabilities", "kept")}),
    ],
    ids=["fp16, uint8", "bf16", "dropped"],
)
def test_is_proven(tmp_path: Path, evolution: Fusion, how: dict[str, Any]) -> None:
    result = export_onnx(small(FAMILIES[0], evolution, 3), tmp_path / "m.onnx", ExportOptions(ModelOptions(**how)))
    assert result.parity is not None
    assert result.parity.passed
    assert set(result.parity.jaccard) == {"kept_1", "kept_2"}

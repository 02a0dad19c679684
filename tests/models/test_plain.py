"""The trained digits model against a plain implementation of the paper; needs nothing but the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evovit_deploy import Engine, ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.transform import preprocess
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, Structure
from tests.modules import module_of

from .plain import PlainEvoDeit

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def plain_of(checkpoint, schedule: str = "stage") -> PlainEvoDeit:
    structure, evolution = checkpoint.recipe.parts(Structure, Evolution)
    keep = evolution.keep_ratios
    starts = evolution.stage_starts if schedule == "stage" else [i for i, ratio in enumerate(keep) if ratio < 1]
    return PlainEvoDeit(checkpoint.state, structure.num_heads, keep, evolution.tradeoff, starts)


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(DIGITS / "evo_deit_digits.pth")


@pytest.fixture(scope="module")
def case(checkpoint):
    """(images [10, 3, 64, 64], logits [10, 10], kept patches of both stages) of a digit of each class."""
    recipe, plain = checkpoint.recipe, plain_of(checkpoint)
    files = [sorted((DIGITS / "test" / digit).iterdir())[0] for digit in "0123456789"]
    images = np.stack([preprocess(load_image(f), recipe.transform, recipe.structure.image_size) for f in files])
    logits, kept = zip(*map(plain, images), strict=True)
    return images, np.stack(logits), [np.array([stages[i] for stages in kept]) for i in (0, 1)]


@pytest.mark.parametrize("schedule", ["stage", "layer"])
def test_the_plain_model_is_the_authors(reference, schedule):
    checkpoint = load_checkpoint(reference / "evo_deit_micro.pth")
    data = np.load(reference / "evo_deit_micro.npz")
    plain, expected = plain_of(checkpoint, schedule), data["logits" if schedule == "stage" else "logits_layerwise"]
    for i, image in enumerate(data["images"]):
        logits, kept = plain(image)
        assert np.abs(logits - expected[i]).max() <= 1e-5
        if schedule == "stage":
            assert [kept[0], kept[1]] == [data["stage1_kept"][i].tolist(), data["stage2_kept"][i].tolist()]


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
def test_the_module_is_the_plain_model(checkpoint, case, fold):
    images, logits, kept = case
    module = module_of(checkpoint, ModelOptions(fold=fold, trim=fold, outputs=("logits", "kept")))
    with torch.inference_mode():
        got = [value.numpy() for value in module(torch.from_numpy(images))]
    assert np.abs(got[0] - logits).max() <= 1e-5
    assert all(np.array_equal(a, b) for a, b in zip(got[1:], kept, strict=True))


def test_the_exported_file_is_the_plain_model(checkpoint, case, tmp_path):
    images, logits, kept = case
    options = ExportOptions(ModelOptions(outputs=("logits", "kept")), prove=False)
    with Engine.open(export_onnx(checkpoint, tmp_path / "x.onnx", options).path, provider="cpu") as engine:
        got = engine(images)
    assert np.abs(got["logits"] - logits).max() <= 1e-5
    assert all(np.array_equal(got[f"kept_{i + 1}"], kept[i]) for i in (0, 1))

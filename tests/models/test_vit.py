"""The model against the authors' outputs: both schedules, every pattern, folded and unfolded, trimmed and not."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from evovit_deploy import load_checkpoint
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from tests.modules import module_of

CASES = [("evo_deit_micro", (0.5, 0.5)), ("evo_deit_micro_keep70", (0.7, 0.5))]


@pytest.fixture(params=CASES, ids=[name for name, _ in CASES], scope="module")
def case(request, reference):
    """(checkpoint with its keep ratios, reference arrays)."""
    name, keep = request.param
    return _load(reference, name, keep)


@cache
def _load(reference, name, keep):
    checkpoint = load_checkpoint(reference / f"{name}.pth")
    evolution = checkpoint.recipe.evolution.with_keep(keep)
    recipe = dataclasses.replace(checkpoint.recipe, evolution=evolution)
    return dataclasses.replace(checkpoint, recipe=recipe), dict(np.load(reference / f"{name}.npz"))


def with_schedule(checkpoint, schedule):
    evolution = dataclasses.replace(checkpoint.recipe.evolution, schedule=schedule)
    return dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, evolution=evolution))


def run(checkpoint, images, **options):
    model = module_of(checkpoint, ModelOptions(outputs=("logits", "kept"), **options))
    with torch.inference_mode():
        return {k: v.numpy() for k, v in zip(model.output_names, model(torch.from_numpy(images)))}


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "untrimmed"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("selection", sorted(PATTERNS))
@pytest.mark.parametrize("schedule", ["stage", "layer"])
def test_fp32_equals_the_authors_model(case, schedule, selection, fold, trim):
    checkpoint, data = case
    got = run(with_schedule(checkpoint, schedule), data["images"], selection=selection, fold=fold, trim=trim)
    expected = data["logits" if schedule == "stage" else "logits_layerwise"]
    assert np.abs(got["logits"] - expected).max() <= 1e-5
    if schedule == "stage":
        assert np.array_equal(got["kept_1"], data["stage1_kept"])
        assert np.array_equal(got["kept_2"], data["stage2_kept"])


def test_batch_size_does_not_matter(case):
    checkpoint, data = case
    together = run(checkpoint, data["images"])
    for i in range(len(data["images"])):
        alone = run(checkpoint, data["images"][i : i + 1])
        assert np.abs(alone["logits"] - together["logits"][i]).max() <= 1e-5
        assert np.array_equal(alone["kept_1"][0], together["kept_1"][i])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("schedule", ["stage", "layer"])
def test_half_precision_keeps_the_top_class(case, schedule, precision):
    checkpoint, data = case
    got = run(with_schedule(checkpoint, schedule), data["images"], precision=precision)
    expected = data["logits" if schedule == "stage" else "logits_layerwise"]
    assert np.array_equal(got["logits"].argmax(1), expected.argmax(1))
    assert got["kept_1"].dtype == np.int64
    assert got["logits"].dtype == np.float32


def test_scores_that_decide_the_first_selection_are_the_authors(case):
    checkpoint, data = case
    model = module_of(checkpoint, ModelOptions())
    seen = []
    original = model.selection_of
    model.selection_of = lambda scores, keep: (seen.append(scores), original(scores, keep))[1]
    with torch.inference_mode():
        model(torch.from_numpy(data["images"]))
    assert np.abs(seen[0][:, 1:].numpy() - data["stage1_scores"]).max() <= 1e-5
    assert all((scores[:, :1] > 1e3 * scores[:, 1:].abs()).all() for scores in seen)  # the class token is always kept


def test_probabilities_are_the_softmax(case):
    checkpoint, data = case
    model = module_of(checkpoint, ModelOptions(outputs=("probabilities", "logits")))
    assert model.output_names == ("probabilities", "logits")
    probabilities, logits = model(torch.from_numpy(data["images"]))
    assert torch.allclose(probabilities, logits.softmax(-1))


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
def test_uint8_input_equals_normalised_float_input(case, fold):
    checkpoint, _ = case
    size = checkpoint.recipe.structure.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    transform = checkpoint.recipe.transform
    images = ((pixels / 255 - transform.mean) / transform.std).astype(np.float32).transpose(0, 3, 1, 2)
    a = run(checkpoint, np.ascontiguousarray(images), fold=fold)
    b = run(checkpoint, pixels, fold=fold, image_input="uint8")
    assert np.abs(a["logits"] - b["logits"]).max() <= 1e-5
    assert np.array_equal(a["kept_1"], b["kept_1"])

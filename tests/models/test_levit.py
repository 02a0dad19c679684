"""Evo-LeViT against the authors' outputs: every pattern, folded and unfolded, trimmed and not, in any company."""

import dataclasses
import threading
from functools import cache

import numpy as np
import pytest
import torch

from evovit_deploy import InputError, RecipeError, load_checkpoint, random_checkpoint
from evovit_deploy.models.levit.levit import EvoLevit
from evovit_deploy.models.options import ModelOptions
from tests.levit_reference import NAME, TINY
from tests.modules import module_of

BOTH = ("logits", "kept")
PATTERNS = ("topk", "rank", "onehot")


@cache
def _load(folder):
    return load_checkpoint(folder / f"{NAME}.pth"), dict(np.load(folder / f"{NAME}.npz"))


@pytest.fixture
def case(reference):
    """(checkpoint, reference arrays)."""
    return _load(reference)


def run(model, images):
    with torch.inference_mode():
        return {k: v.numpy() for k, v in zip(model.output_names, model(torch.from_numpy(images)))}


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "untrimmed"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("selection", PATTERNS)
def test_fp32_equals_the_authors_model(case, selection, fold, trim):
    checkpoint, data = case
    model = module_of(checkpoint, ModelOptions(selection=selection, fold=fold, trim=trim, outputs=BOTH))
    got = run(model, data["images"])
    assert np.abs(got["logits"] - data["logits"]).max() <= 1e-5
    assert np.array_equal(got["kept_1"], data["sel1_kept"])
    for i, image in enumerate(data["images"]):
        alone = run(model, image[None])
        assert np.abs(alone["logits"][0] - data["logits"][i]).max() <= 1e-5
        assert np.array_equal(alone["kept_1"][0], data["sel1_kept"][i])


def test_scores_that_decide_the_selection_are_the_authors(case):
    checkpoint, data = case
    model = module_of(checkpoint)
    seen = []
    original = model.selection_of
    model.selection_of = lambda scores, keep: (seen.append(scores), original(scores, keep))[1]
    run(model, data["images"])
    assert np.abs(seen[0][:, 1:].numpy() - data["sel1_scores"]).max() <= 1e-5


def test_two_interleaved_requests_give_what_one_after_the_other_gives(case):
    """Both threads stand inside the forward pass at the same time: each waits for the other before every group."""
    checkpoint, data = case
    model = module_of(checkpoint, ModelOptions(outputs=BOTH))
    requests = [data["images"][:2], np.ascontiguousarray(data["images"][2:5, :, ::-1])]
    expected = [run(model, images) for images in requests]
    barrier, original, got = threading.Barrier(2, timeout=60), model.run_blocks, [None, None]

    def meet(group, x):
        barrier.wait()
        return original(group, x)

    def request(i):
        got[i] = run(model, requests[i])

    model.run_blocks = meet
    threads = [threading.Thread(target=request, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(expected, got):
        assert b is not None
        for name in a:
            assert np.array_equal(a[name], b[name])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_the_top_class(case, precision):
    checkpoint, data = case
    got = run(module_of(checkpoint, ModelOptions(precision, outputs=BOTH)), data["images"])
    assert np.array_equal(got["logits"].argmax(1), data["logits"].argmax(1))
    assert got["kept_1"].dtype == np.int64
    assert got["logits"].dtype == np.float32


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
def test_uint8_input_equals_normalised_float_input(case, fold):
    checkpoint, _ = case
    images, pixels = noise(checkpoint.recipe)
    a = run(module_of(checkpoint, ModelOptions(fold=fold, outputs=BOTH)), images)
    b = run(module_of(checkpoint, ModelOptions(image_input="uint8", fold=fold, outputs=BOTH)), pixels)
    assert np.abs(a["logits"] - b["logits"]).max() <= 1e-5
    assert np.array_equal(a["kept_1"], b["kept_1"])


def test_uint8_input_is_as_good_in_fp16_also_at_the_border(case):
    """The stem's output at every place, padded border included, is as near to FP32 as that of normalised float input."""
    checkpoint, _ = case
    images, pixels = noise(checkpoint.recipe)
    exact = module_of(checkpoint).tokens_of(torch.from_numpy(images))

    def error(**options):
        model = module_of(checkpoint, ModelOptions("fp16", **options))
        given = pixels if options else images
        return (model.tokens_of(torch.from_numpy(given)).float() - exact).abs().amax((0, 2)).view(-1)[1:].view(8, 8)

    of_float, of_uint8 = error(), error(image_input="uint8")
    assert of_uint8.max() < 0.01
    assert of_uint8[0].max() <= 2 * of_float.max()
    assert of_uint8[:, 0].max() <= 2 * of_float.max()


def noise(recipe):
    size, transform = recipe.structure.image_size, recipe.transform
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    images = ((pixels / 255 - transform.mean) / transform.std).astype(np.float32).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), pixels


@pytest.mark.parametrize("trim", [True, False])
def test_keep_ratio_1_selects_nothing(trim):
    evolution = TINY.evolution.with_keep((1.0,))
    checkpoint = random_checkpoint(dataclasses.replace(TINY, evolution=evolution))
    model = module_of(checkpoint, ModelOptions(outputs=BOTH, trim=trim))
    assert model.output_names == ("logits",)
    assert not any(group.weights for stage in model.stages for group in stage.groups)
    assert run(model, np.zeros((2, 3, 64, 64), np.float32))["logits"].shape == (2, 7)


def test_kept_positions_lie_on_the_grid_of_their_stage():
    model = module_of(random_checkpoint(TINY), ModelOptions(outputs=("kept", "probabilities")))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    got = run(model, images)
    assert list(got) == ["kept_1", "kept_2", "probabilities"]
    for kept, patches in ((got["kept_1"], 16), (got["kept_2"], 4)):
        assert kept.shape == (2, patches // 2)
        assert (np.diff(kept) > 0).all()
        assert kept.min() >= 0
        assert kept.max() < patches
    assert np.allclose(got["probabilities"].sum(1), 1)


def test_a_keep_ratio_that_keeps_no_patch():
    with pytest.raises(RecipeError, match=r"keeps no patch of 4; the smallest that keeps one is 0\.25"):
        EvoLevit(TINY.structure, TINY.evolution.with_keep((0.5, 0.2)), [0.5] * 4)


def test_a_pattern_that_moves_tokens_is_refused():
    with pytest.raises(InputError, match="valid: auto, topk, rank, onehot"):
        module_of(random_checkpoint(TINY), ModelOptions(selection="sort"))

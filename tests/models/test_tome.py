"""ToMe: timm at r = 0, the authors' outputs, and merging done by hand over timm's blocks for every family."""

import numpy as np
import pytest
import torch

from evovit_deploy import InputError, RecipeError
from evovit_deploy.models.families import family_of
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.tome_recipe import Merging
from tests.modules import module_of
from tests.timm_models import FAMILIES, SMALL, images_for, merged, merging_of, timm_model

EVEN, UNEVEN, NONE = (4, 4, 4, 4), (0, 9, 3, 0), (0, 0, 0, 0)
EVERYTHING = ("logits", "sources", "sizes")
BATCHES = (slice(0, 1), slice(None))


def run(checkpoint, images, **options):
    model = module_of(checkpoint, ModelOptions(**options))
    with torch.inference_mode():
        return dict(zip(model.output_names, model(images)))


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "whole"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_r_0_is_timm(family, fold, trim):
    model = timm_model(family)
    images = images_for(model)
    with torch.inference_mode():
        expected = model(images)
    (got,) = run(merging_of(family, NONE), images, fold=fold, trim=trim).values()
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("r", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("family", FAMILIES)
def test_merging_is_that_by_hand(family, r):
    model = timm_model(family)
    images, prefix = images_for(model), model.num_prefix_tokens
    expected, groups = merged(model, images, r)
    main = "embedding" if family.endswith("headless") else "logits"
    everything = (main, "sources", "sizes")
    for fold, trim, outputs in ((True, True, everything), (False, False, everything), (True, True, (main,))):
        got = run(merging_of(family, r), images, fold=fold, trim=trim, outputs=outputs)
        assert (got[main] - expected).abs().max() <= 1e-5
    told = run(merging_of(family, r), images, outputs=everything)
    blocks = [i for i, count in enumerate(r) if count]
    assert list(told) == [main, *(f"sources_{n + 1}" for n in range(len(blocks))), "sizes"]
    for image, of_image in enumerate(groups):
        for n, block in enumerate(blocks):
            sources = told[f"sources_{n + 1}"][image]
            assert [torch.nonzero(sources == t)[:, 0].tolist() for t in range(len(of_image[block]))] == of_image[block]
        assert told["sizes"][image].tolist() == [1] * prefix + [len(group) for group in of_image[-1][prefix:]]


@pytest.mark.parametrize("family", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_224 avg"])
def test_features_are_at_the_places_of_their_patches(family):
    model = timm_model(family)
    images = images_for(model)
    outputs = ("embedding", "patch_tokens", "block_1", "sources")
    got = run(merging_of(family, EVEN), images, outputs=outputs)
    alone = run(merging_of(family, EVEN), images, outputs=("embedding",))["embedding"]
    assert (got["embedding"] - alone).abs().max() <= 1e-5
    for output, sources in (("patch_tokens", got["sources_4"]), ("block_1", got["sources_2"])):
        tokens = got[output]
        assert tokens.shape == (len(images), 36, SMALL["embed_dim"])
        same = (tokens[:, :, None] == tokens[:, None]).all(-1)
        assert torch.equal(same, sources[:, :, None] == sources[:, None]), "one token, one feature"
    none = run(merging_of(family, NONE), images, outputs=("patch_tokens",))["patch_tokens"]
    with torch.inference_mode():
        assert (none - model.forward_features(images)[:, model.num_prefix_tokens :]).abs().max() <= 1e-4


@pytest.mark.parametrize("family", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_224 avg"])
def test_a_power_of_two_at_any_seam_changes_nothing(family):
    """Nor what is merged, by keys that are scaled too."""
    checkpoint, options = merging_of(family, (4, 4, 0, 4)), ModelOptions(outputs=EVERYTHING)
    images, row = images_for(timm_model(family)), family_of(checkpoint.recipe)
    with torch.inference_mode():
        expected = module_of(checkpoint, options)(images)
    count = len(row.seams(module_of(checkpoint, options)))
    assert count > 4 * 4
    for number in range(count):
        module = module_of(checkpoint, options)
        seam = row.seams(module)[number]
        with torch.no_grad():
            for part in seam.down:
                part.tensor.mul_(1 / 8)
            for part in seam.up:
                part.tensor.mul_(8)
            for norm in seam.norms:
                norm.eps /= 64
            for got, known in zip(module(images), expected, strict=True):
                assert (got - known).abs().max() <= 1e-6, seam.name


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_counts_in_fp32(precision):
    images = images_for(timm_model("vit_small_patch16_224"))
    exact = run(merging_of("vit_small_patch16_224", EVEN), images, outputs=EVERYTHING)
    half = run(merging_of("vit_small_patch16_224", EVEN), images, outputs=EVERYTHING, precision=precision)
    assert (half["sizes"].sum(1) == exact["sizes"].sum(1)).all()
    assert half["sizes"].dtype == torch.float32
    assert (half["logits"] - exact["logits"]).abs().max() <= 0.1 * exact["logits"].abs().max()


@pytest.mark.parametrize(
    ("name", "r", "pool"),
    [
        ("tome_micro", (3.0,), "cls"),
        ("tome_micro_decreasing", (4.0, -1.0), "cls"),
        ("tome_micro_avg", (3.0,), "patches"),
    ],
)
def test_reference(tome_reference, name, r, pool):
    """The authors' model; in ONNX Runtime: tests/export/test_tome_onnx.py."""
    checkpoint, data = tome_reference(name, r, pool)
    images = torch.from_numpy(data["images"])
    for fold in (True, False):
        for some in BATCHES:
            got = run(checkpoint, images[some], fold=fold, outputs=EVERYTHING)
            assert np.abs(got["logits"].numpy() - data["logits"][some]).max() <= 1e-5
            assert np.array_equal(got["sizes"].numpy(), data["final_sizes"][some])


def test_r_in_its_three_forms():
    base = Merging((1,) * 12)
    assert base.with_r((8.0,)).r == (8,) * 12
    assert base.with_r((8.0, -1.0)).r == (16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0)
    assert base.with_r((8.0, 0.0)).r == (8,) * 12
    assert base.with_r(tuple(map(float, range(12)))).r == tuple(range(12))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((-1.0,), "r -1 is impossible"),
        ((1.5,), "r 1.5 is impossible"),
        ((8.0, 2.0), "2 values of r given"),
        ((float("inf"), 5.0), "r inf is impossible"),
        ((float("nan"), 2.0), "r nan is impossible"),
        ((), "0 values of r given"),
        ((8.0,) * 11, r"11 values of r given .*12 \(one per block\)"),
        ((8.0,) * 11 + (-8.0,), "r -8 is impossible"),
    ],
)
def test_bad_r(given, words):
    with pytest.raises(RecipeError, match=words):
        Merging((1,) * 12).with_r(given)


def test_r_that_leaves_no_token():
    with pytest.raises(
        RecipeError, match=r"adds up to 36 over 4 blocks, and there are 36 patches.*largest r for all blocks is 8"
    ):
        merging_of("vit_small_patch16_224", (9, 9, 9, 9))
    with pytest.raises(RecipeError, match="3 values of r for 4 blocks"):
        Merging((1, 1, 1)).check(merging_of("vit_small_patch16_224", NONE).recipe.structure)


def test_a_block_merges_half_of_its_tokens_at_most():
    recipe = merging_of("vit_small_patch16_224", (30, 0, 4, 0)).recipe
    assert recipe.evolution.counts(recipe.structure) == (18, 0, 4, 0)
    groups = family_of(recipe).schedule(recipe)["groups"]
    assert [(g["first_block"], g["patches"], g["merges"]) for g in groups] == [
        (0, 36, 18),
        (1, 18, 0),
        (2, 18, 4),
        (3, 14, 0),
    ]


def test_what_it_does_not_have():
    checkpoint = merging_of("vit_small_patch16_224", EVEN)
    with pytest.raises(InputError, match="outputs kept is not for timm ViT, tokens merged"):
        module_of(checkpoint, ModelOptions(outputs=("kept",)))
    with pytest.raises(InputError, match="selection topk is for methods that select"):
        module_of(checkpoint, ModelOptions(selection="topk"))

"""The vanilla twin is timm's DeiT, folded or not, trimmed or not."""

import dataclasses

import pytest
import torch

from evovit_deploy import InputError, RecipeError, load_recipe
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vanilla import build_stock, build_twin, vanilla_recipe
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.models.vit.vanilla import timm_deit

SMALL = dataclasses.replace(
    load_recipe("evo_deit_tiny_patch16_224").structure,
    image_size=64,
    embed_dim=128,
    depth=4,
    num_heads=2,
    num_classes=7,
)
RECIPE = dataclasses.replace(load_recipe("evo_deit_tiny_patch16_224"), structure=SMALL, evolution=scaled_evolution(4))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("trim", [True, False])
def test_twin_equals_timm(fold, trim):
    recipe = vanilla_recipe(RECIPE)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = timm_deit(SMALL, seed=3)(images)
        (got,) = build_twin(recipe, ModelOptions(fold=fold, trim=trim), seed=3)(images)
        (stock,) = build_stock(recipe, ModelOptions(), seed=3)(images)
    assert torch.allclose(expected, got, atol=1e-5)
    assert torch.equal(expected, stock)


def test_seeds_make_weights_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b = timm_deit(SMALL, 0).state_dict(), timm_deit(SMALL, 0).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["head.weight"], timm_deit(SMALL, 1).state_dict()["head.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_uint8_stock_normalises():
    recipe = vanilla_recipe(RECIPE)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (a,) = build_stock(recipe, ModelOptions(image_input="uint8"))(pixels)
    (b,) = build_twin(recipe, ModelOptions(image_input="uint8"))(pixels)
    assert torch.allclose(a, b, atol=1e-5)


def test_unknown_baseline_lists_the_known():
    with pytest.raises(RecipeError, match="deit_tiny_patch16_224"):
        vanilla_recipe("resnet50")


def test_kept_is_no_output_of_a_vanilla_model():
    with pytest.raises(InputError, match="keeps every token"):
        build_twin(vanilla_recipe(RECIPE), ModelOptions(outputs=("logits", "kept")))

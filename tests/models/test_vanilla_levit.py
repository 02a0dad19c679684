"""The vanilla twin is timm's LeViT, folded or not, trimmed or not."""

import dataclasses

import pytest
import torch

from evovit_deploy import InputError, load_recipe
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vanilla import build_stock, build_twin, stock_model, vanilla_recipe
from evovit_deploy.recipes import LevitStructure, baseline_names

# An odd grid, so that subsampling rounds up.
SMALL = LevitStructure(112, (32, 48, 64), 8, (2, 3, 4), (2, 1, 2), num_classes=7)
RECIPE = dataclasses.replace(load_recipe("evo_levit_128s_224"), structure=SMALL)
PIXELS = torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("distilled", [True, False])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("trim", [True, False])
def test_twin_equals_timm(fold, trim, distilled):
    recipe = vanilla_recipe(dataclasses.replace(RECIPE, structure=dataclasses.replace(SMALL, distilled=distilled)))
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = stock_model(recipe, seed=3)(images)
        (got,) = build_twin(recipe, ModelOptions(fold=fold, trim=trim), seed=3)(images)
        (stock,) = build_stock(recipe, ModelOptions(), seed=3)(images)
    assert expected.std() > 0.01
    assert torch.allclose(expected, got, atol=1e-5)
    assert torch.equal(expected, stock)


def test_the_attention_bias_counts():
    """Random, so that a twin without it, or with it in the wrong place, differs from timm."""
    model = build_twin(vanilla_recipe(RECIPE), ModelOptions())
    tables = [module.bias for module in model.modules() if getattr(module, "bias", None) is not None]
    assert sum(table.dim() == 3 and bool(table.any()) for table in tables) == 7


def test_uint8_stock_normalises():
    recipe = vanilla_recipe(RECIPE)
    (a,) = build_stock(recipe, ModelOptions(image_input="uint8"))(PIXELS)
    (b,) = build_twin(recipe, ModelOptions(image_input="uint8"))(PIXELS)
    assert torch.allclose(a, b, atol=1e-5)


def test_seeds_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    a, b = (stock_model(vanilla_recipe(RECIPE), seed).state_dict() for seed in (0, 1))
    assert not torch.equal(a["head.linear.weight"], b["head.linear.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_baselines_have_names():
    assert {"levit_128s_224", "levit_384_384"} <= set(baseline_names())
    recipe = vanilla_recipe("levit_128s_224")
    assert (recipe.name, recipe.family, recipe.evolution.keep_ratios) == ("levit_128s_224", "levit", (1.0, 1.0))


def test_kept_is_no_output_of_a_vanilla_model():
    with pytest.raises(InputError, match="keeps every token"):
        build_twin(vanilla_recipe(RECIPE), ModelOptions(outputs=("logits", "kept")))

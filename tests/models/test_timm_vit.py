"""timm's families: equal to timm at keep ratio 1, and to token evolution done by hand over timm's blocks below it."""

import dataclasses

import numpy as np
import pytest
import torch

from evovit_deploy import InputError
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vanilla import build_stock, build_twin, vanilla_recipe
from evovit_deploy.models.vit.timm_names import create, resolve_name
from evovit_deploy.models.vit.timm_source import scaled_evolution
from evovit_deploy.models.vit.timm_vit import rename, structure_of
from evovit_deploy.recipes import Evolution
from tests.modules import module_of
from tests.timm_models import FAMILIES, SMALL, checkpoint_of, evolved, images_for, timm_model

ALL = Evolution((1.0,) * 4, (1.0,) * 4, stage_starts=())
HALF = scaled_evolution(4)
UNEVEN = Evolution((1.0, 0.7, 0.7, 0.4), (1.0, 0.8, 0.3, 0.5), stage_starts=(1, 3))
REGISTERS = "vit_small_patch14_reg4_dinov2"


def run(checkpoint, images, **options):
    model = module_of(checkpoint, ModelOptions(**options))
    with torch.inference_mode():
        return dict(zip(model.output_names, model(images)))


def assert_equal_by_hand(family, evolution, **options):
    model = timm_model(family)
    images = images_for(model)
    expected, kept = evolved(model, images, evolution)
    scores = "embedding" if "headless" in family else "logits"
    got = run(checkpoint_of(family, evolution), images, outputs=(scores, "kept"), **options)
    for number in range(len(kept[0])):
        assert got[f"kept_{number + 1}"].tolist() == [image[number] for image in kept]
    assert (got[scores] - expected).abs().max() <= 1e-5
    return expected


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "whole"])
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keep_ratio_1_is_timm(family, fold, trim):
    model = timm_model(family)
    images = images_for(model)
    with torch.inference_mode():
        expected = model(images)
    (got,) = run(checkpoint_of(family, ALL), images, fold=fold, trim=trim).values()
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_below_1_is_evolution_by_hand(family, fold):
    expected = assert_equal_by_hand(family, HALF, fold=fold)
    with torch.inference_mode():
        whole = timm_model(family)(images_for(timm_model(family)))
    assert (whole - expected).abs().max() > 1e-3, "leaving half of the patches out has to show"


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "whole"])
@pytest.mark.parametrize("selection", sorted(PATTERNS))
@pytest.mark.parametrize("schedule", ["stage", "layer"])
@pytest.mark.parametrize("family", [REGISTERS, f"{REGISTERS} avg", "deit_small_distilled_patch16_224"])
def test_every_pattern_and_schedule_with_tokens_beside_the_patches(family, schedule, selection, trim):
    evolution = dataclasses.replace(UNEVEN, schedule=schedule)
    assert_equal_by_hand(family, evolution, selection=selection, trim=trim)


def test_registers_always_take_part_and_have_no_score():
    model = module_of(checkpoint_of(REGISTERS, UNEVEN), ModelOptions())
    seen = []
    original = model.selection_of
    model.selection_of = lambda scores, keep: (seen.append((scores, keep)), original(scores, keep))[1]
    with torch.inference_mode():
        model(images_for(timm_model(REGISTERS)))
    assert [keep for _, keep in seen] == [25, 14]
    for scores, keep in seen:
        first = original(scores, keep).select(torch.arange(41.0).expand(3, -1)[..., None])[:, :5, 0]
        assert first.tolist() == [[0, 1, 2, 3, 4]] * 3  # class token and registers keep their places
        assert (scores[:, :5].diff() < 0).all()
        assert (scores[:, 4:5] > 1e3 * scores[:, 5:]).all()


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("family", ["vit_small_patch16_224", REGISTERS, "vit_base_patch32_clip_224"])
def test_uint8_input_equals_normalised_float_input(family, fold):
    checkpoint = checkpoint_of(family)
    size, transform = checkpoint.recipe.structure.image_size, checkpoint.recipe.transform
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    images = torch.from_numpy(((pixels / 255 - transform.mean) / transform.std).astype(np.float32)).permute(0, 3, 1, 2)
    a = run(checkpoint, images, fold=fold, outputs=("logits", "kept"))
    b = run(checkpoint, torch.from_numpy(pixels), fold=fold, outputs=("logits", "kept"), image_input="uint8")
    assert (a["logits"] - b["logits"]).abs().max() <= 2e-5
    assert torch.equal(a["kept_1"], b["kept_1"])


@pytest.mark.parametrize("kind", ["twin", "trimmed", "stock"])
def test_the_vanilla_twin_has_the_same_weights(kind, monkeypatch):
    """`test_vit` is a model of timm that is small by itself."""
    from evovit_deploy.checkpoint import random_checkpoint, timm_recipe

    checkpoint = random_checkpoint(timm_recipe("test_vit", pool="avg"), seed=5)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    vanilla = vanilla_recipe(checkpoint.recipe)
    assert (vanilla.name, vanilla.family) == ("test_vit", "vit")
    build, options = build_stock if kind == "stock" else build_twin, ModelOptions(trim=kind == "trimmed")
    (got,) = build(vanilla, options, state=checkpoint.state)(images)
    (same_seed,) = build(vanilla, options, seed=5)(images)
    (other,) = build(vanilla, options, seed=6)(images)
    every = checkpoint.recipe.evolution.with_keep((1.0,))
    whole = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, evolution=every))
    assert (run(whole, images)["logits"] - got).abs().max() <= 1e-5
    assert torch.equal(got, same_seed)
    assert (got - other).abs().max() > 1e-2


def test_layer_scale_that_is_not_folded_would_show():
    family = "deit3_small_patch16_224"
    state = dict(timm_model(family).state_dict())
    structure = structure_of(timm_model(family), family)
    scaled = rename(state, structure)
    plain = rename({k: v for k, v in state.items() if "gamma" not in k}, structure)
    for name in ("attn.proj", "fc2"):
        assert (scaled[f"blocks.1.{name}.weight"] - plain[f"blocks.1.{name}.weight"]).abs().max() > 0.01
        assert (scaled[f"blocks.1.{name}.bias"] - plain[f"blocks.1.{name}.bias"]).abs().max() > 0.01
    assert torch.equal(scaled["pos_embed"][:, 0], torch.zeros(1, 64)), "no_embed_class: the class token has no position"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit_base_patch16_siglip_224", {}, "no class token"),
        ("vit_base_patch16_gap_224", {}, "no class token"),
        ("vit_small_patch16_224", {"qk_norm": True}, "norms q and k"),
        ("vit_small_patch16_224", {"global_pool": "avgmax"}, "pools by 'avgmax'"),
        ("vit_small_patch16_224", {"global_pool": "map"}, "pools by 'map'"),
        ("vit_small_patch16_224", {"pool_include_prefix": True, "global_pool": "avg"}, "pool_include_prefix"),
        ("vit_small_patch16_224", {"final_norm": False}, "no LayerNorm, or two"),
        ("vit_small_patch16_224", {"norm_layer": "rmsnorm"}, "norms with RmsNorm"),
        ("vit_small_patch16_224", {"act_layer": "gelu_tanh"}, "activation GELUTanh"),
        ("vit_small_patch16_224", {"img_size": (224, 448)}, "not square"),
        ("vit_small_patch16_224", {"in_chans": 1}, "1 channels"),
        ("vit_small_patch16_224", {"scale_mlp_norm": True}, "scale_mlp_norm"),
        ("vit_small_patch16_224", {"dynamic_img_pad": True}, "dynamic_img_pad"),
        ("vit_small_patch16_224", {"depth": 1}, "one block only"),
        ("vit_base_patch16_xp_224", {}, "ParallelScalingBlock"),
        ("vit_base_patch16_rope_224", {}, "it is a Eva"),
        ("eva02_tiny_patch14_224", {}, "it is a Eva"),
        ("vit_small_r26_s32_224", {}, "its stem is a HybridEmbed"),
        ("resnet18", {}, "it is a ResNet"),
    ],
)
def test_what_cannot_be_exact_is_named_and_refused(name, options, words):
    with pytest.raises(InputError, match="Supported are timm's plain ViTs") as caught:
        structure_of(create(resolve_name(name), **options), name)
    assert words in str(caught.value)


def test_small_families_are_the_families():
    """The overrides of these tests change sizes only."""
    for family in FAMILIES:
        name = family.split()[0]
        small, own = structure_of(timm_model(family), name), structure_of(create(name), name)
        for fact in ("registers", "activation", "norm_eps", "pre_norm"):
            assert getattr(small, fact) == getattr(own, fact)
    assert SMALL["depth"] == 4


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch16_224.augreg_in1k", "hf-hub:timm/vit_small_patch16_224.augreg_in1k"]
)
def test_names_of_the_hub(name):
    assert resolve_name(name) == "vit_small_patch16_224.augreg_in1k"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_smal_patch16_224", "vit_small_patch16_224"),
        ("dinov2", "dinov2"),
        ("hf-hub:someone/model", "no model called"),
        ("", "vit_small_patch16_224"),
        ("vit_small_patch16_224.nope", "augreg_in1k"),
    ],
)
def test_unknown_names_list_what_is_close(name, words):
    with pytest.raises(InputError) as caught:
        resolve_name(name)
    assert words in str(caught.value)


def test_random_weights_depend_on_the_seed_only_and_nothing_is_trivial():
    before = torch.random.get_rng_state()
    a, b, c = (create("test_vit3", seed, global_pool="avg").state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])
    gammas = [value for key, value in a.items() if key.endswith("gamma")]
    assert gammas
    assert all((gamma == 1).all() for gamma in gammas)

"""Weights of timm ViTs from files: every form they come in, what they decide, and what is refused."""

import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file

from evovit_deploy import CheckpointError, InputError, RecipeError, load_checkpoint, load_recipe, random_checkpoint
from evovit_deploy.checkpoint import timm_recipe
from evovit_deploy.models.families import by_method, register, unregister
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.timm_source import accuracy_note, scaled_evolution
from evovit_deploy.recipes import Recipe
from tests.conftest import DIGITS
from tests.modules import module_of

NAME = "test_vit"  # C 64, 6 blocks, 160 px: a model of timm that is small by itself


def random_timm(name=NAME, **options):
    torch.manual_seed(3)
    model = timm.create_model(name, pretrained=False, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def saved(path, state):
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def full_logits(checkpoint, images):
    evolution = checkpoint.recipe.evolution.with_keep((1.0,))
    whole = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, evolution=evolution))
    with torch.inference_mode():
        return module_of(whole, ModelOptions())(images)[0]


def assert_is_timm(checkpoint, model):
    size = model.patch_embed.img_size[0]
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (full_logits(checkpoint, images) - model(images)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".pth", lambda state: state),
        (".pth", lambda state: {"model": state, "epoch": 3}),
        (
            ".pth",
            lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, "arch": NAME},
        ),
        (".pth", lambda state: {key: tensor.half() for key, tensor in state.items()}),
        (".safetensors", lambda state: state),
    ],
    ids=["bare", "model", "module prefix", "half", "safetensors"],
)
def test_every_form_of_a_file(tmp_path, suffix, wrap):
    model = random_timm(num_classes=11)
    path = saved(tmp_path / f"weights{suffix}", wrap(model.state_dict()))
    checkpoint = load_checkpoint(path, timm=f"timm/{NAME}.r160_in1k")
    assert checkpoint.recipe.name == "evo_test_vit_r160_in1k"
    assert checkpoint.recipe.baseline == "test_vit.r160_in1k"
    assert checkpoint.recipe.structure.num_classes == 11, "classes are those of the weights"
    assert checkpoint.sha256
    assert not checkpoint.random
    if "half" not in checkpoint.stored_dtype and checkpoint.stored_dtype != "float16":
        assert_is_timm(checkpoint, model)


def test_the_transform_is_that_of_the_weights():
    augreg = timm_recipe("vit_small_patch16_224.augreg_in1k").transform
    assert (augreg.mean, augreg.std) == ((0.5,) * 3, (0.5,) * 3)
    assert augreg.resize_ratio == pytest.approx(1 / 0.9)
    dino = timm_recipe("vit_small_patch16_224.dino").transform
    assert dino.mean == (0.485, 0.456, 0.406)
    assert timm_recipe("deit3_small_patch16_224.fb_in22k_ft_in1k").transform.resize_ratio == 1


def test_a_transform_that_cannot_be_had_is_refused():
    with pytest.raises(InputError, match="crop_mode 'squash'"):
        timm_recipe("eva_large_patch14_336")


@pytest.mark.parametrize(("options", "pool"), [({}, "patches"), ({"fc_norm": False}, "normed_patches")])
def test_mean_pooling_is_told_by_the_norm(tmp_path, options, pool):
    model = random_timm(global_pool="avg", **options)
    path = saved(tmp_path / "avg.pth", model.state_dict())
    asked = {"pool": "avg"} if options else {}  # a plain `norm` is where class-token models have it too
    checkpoint = load_checkpoint(path, timm=NAME, **asked)
    assert checkpoint.recipe.structure.pool == pool
    assert_is_timm(checkpoint, model)
    if not options:
        with pytest.raises(InputError, match=r"fc_norm\.weight"):
            load_checkpoint(path, timm=NAME, pool="token")


@pytest.mark.parametrize(
    ("name", "trained", "size", "words"),
    [
        (NAME, 160, 224, "10 x 10 to 14 x 14"),
        ("vit_small_patch14_reg4_dinov2", 56, 84, "4 x 4 to 6 x 6"),  # positions of patches only
    ],
)
def test_image_size_resizes_positions_as_timm_does(tmp_path, name, trained, size, words):
    state = random_timm(name, img_size=trained).state_dict()
    checkpoint = load_checkpoint(saved(tmp_path / "w.pth", state), timm=name, image_size=size)
    resized = timm.create_model(name, pretrained=False, img_size=trained).eval()
    resized.load_state_dict(state)
    resized.set_input_size((size, size))
    assert any(words in note for note in checkpoint.notes)
    assert_is_timm(checkpoint, resized)


def test_own_image_size_is_that_of_the_positions(tmp_path):
    model = random_timm(img_size=96)
    checkpoint = load_checkpoint(saved(tmp_path / "w.pth", model.state_dict()), timm=NAME)
    assert checkpoint.recipe.structure.image_size == 96
    assert_is_timm(checkpoint, model)


def test_original_names_of_deit3(tmp_path):
    model = random_timm("deit3_small_patch16_224", img_size=64)
    state = {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for key, t in model.state_dict().items()
    }
    assert "blocks.0.gamma_1" in state
    assert_is_timm(load_checkpoint(saved(tmp_path / "w.pth", state), timm="deit3_small_patch16_224"), model)


def test_original_names_of_dinov2_with_registers(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    model = random_timm(name, img_size=56)
    state = dict(model.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 384)
    first = torch.randn(1, 1, 384)
    state["pos_embed"] = torch.cat((first, state["pos_embed"]), 1)
    state["cls_token"] = state["cls_token"] - first
    checkpoint = load_checkpoint(saved(tmp_path / "w.pth", state), timm=name)
    assert checkpoint.recipe.structure.image_size == 56
    assert any("no classification head" in note for note in checkpoint.notes)
    assert_is_timm(checkpoint, model)


@pytest.fixture
def merging():
    """A method whose rates are `r`: twice as many ratios as it says."""
    own = dataclasses.replace(
        by_method("evo"),
        name="merging_vit",
        method="merging",
        start=lambda network: scaled_evolution(network.depth).with_keep((0.9,)),
        rates={"r": lambda evolution, given: evolution.with_keep((given[0] / 10,))},
    )
    register(own)
    yield own
    unregister("merging_vit")


def test_a_method_is_its_row(merging, tmp_path):
    path = saved(tmp_path / "w.pth", random_timm().state_dict())
    found = load_checkpoint(path, timm=NAME, method="merging").recipe
    assert (found.name, found.family, found.evolution.stage_ratios) == ("merging_test_vit", "merging_vit", (0.9, 0.9))
    found = load_checkpoint(path, timm=NAME, method="merging", r=3).recipe
    assert found.evolution.stage_ratios == (0.3, 0.3)
    assert load_checkpoint(path, recipe=found).recipe == found, "a recipe says the method"
    assert load_checkpoint(path, timm=NAME, keep=(0.4, 0.2)).recipe.evolution.stage_ratios == (0.4, 0.2)
    with pytest.raises(InputError, match=r"--keep is not for .*, which takes --r\."):
        load_checkpoint(path, timm=NAME, method="merging", keep=0.5)
    with pytest.raises(InputError, match="is of method merging, not evo"):
        load_checkpoint(path, recipe=found, method="evo")
    with pytest.raises(InputError, match=r"valid: .*evo"):
        load_checkpoint(path, timm=NAME, method="nope")


def test_trained_weights_say_their_method(merging):
    assert load_checkpoint(DIGITS, method="evo").recipe.family == "evo_deit"
    with pytest.raises(InputError, match="is an Evo-DeiT: its weights say the method"):
        load_checkpoint(DIGITS, method="merging")


def test_weights_without_a_head_are_a_model_without_one(tmp_path):
    model = random_timm(num_classes=0)
    checkpoint = load_checkpoint(saved(tmp_path / "w.pth", dict(model.state_dict())), timm=NAME)
    assert (checkpoint.recipe.structure.head, checkpoint.recipe.structure.num_classes) == (False, 64)
    assert any("the output is `embedding`, the model's 64 features" in note for note in checkpoint.notes)
    assert_is_timm(checkpoint, model)  # by its default output


def test_half_a_head_is_a_damaged_file(tmp_path):
    state = dict(random_timm().state_dict())
    del state["head.weight"]
    with pytest.raises(CheckpointError, match=r"missing: `head\.weight`"):
        load_checkpoint(saved(tmp_path / "w.pth", state), timm=NAME)


def test_the_note_on_features_speaks_of_no_accuracy(tmp_path):
    recipe = timm_recipe("vit_small_patch14_dinov2", image_size=56)
    assert "docs/embeddings.md" in (accuracy_note(recipe) or "")
    assert "evovit eval" not in (accuracy_note(recipe) or "")


def without(key):
    return lambda state: {k: t for k, t in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("blocks.3.norm2.bias"), "missing: `blocks.3.norm2.bias`"),
        (without("head.weight"), "missing: `head.weight`"),
        (without("cls_token"), "`cls_token` is missing"),
        (lambda s: {**s, "blocks.0.ls1.gamma": torch.ones(64)}, "unexpected: `blocks.0.ls1.gamma`"),
        (
            lambda s: {**s, "blocks.1.mlp.fc1.bias": torch.ones(3)},
            "`blocks.1.mlp.fc1.bias` has shape [3]; expected [192]",
        ),
        (lambda s: {**s, "patch_embed.proj.weight": torch.ones(64, 3, 14, 14)}, "expected [64, 3, 16, 16]"),
        (lambda s: {**s, "pos_embed": torch.ones(1, 100, 64)}, "`pos_embed` has 100 tokens"),
        (lambda s: {**s, "norm.bias": torch.full((64,), float("nan"))}, "NaN or Inf in `norm.bias`"),
        (lambda s: {**s, "head.bias": torch.ones(1000, dtype=torch.int32)}, "holds int32 values"),
        (lambda s: {"conv1.weight": torch.ones(1)}, "`cls_token` is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, words):
    path = saved(tmp_path / "w.pth", change(dict(random_timm().state_dict())))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, timm=NAME)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_pickle_that_wants_to_run_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("run",)

    torch.save({"model": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_checkpoint(tmp_path / "w.pth", timm=NAME)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 100}, "96 or 112"),
        ({"num_heads": 2}, "--num-heads is for Evo-ViT"),
        ({"pool": "max"}, "valid: token, avg"),
        ({"timm": "vit_base_patch16_siglip_224"}, "no class token"),
    ],
)
def test_bad_options(tmp_path, options, words):
    path = saved(tmp_path / "w.pth", random_timm().state_dict())
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, **{"timm": NAME, **options})
    assert words in str(caught.value)


def test_a_recipe_of_the_family_says_it_all(tmp_path):
    model = random_timm(num_classes=5)
    path = saved(tmp_path / "w.pth", model.state_dict())
    first = load_checkpoint(path, timm=NAME, image_size=96)
    mine = dataclasses.replace(first.recipe, name="mine", evolution=first.recipe.evolution.with_keep((0.8, 0.3)))
    again = load_checkpoint(path, recipe=Recipe.from_dict(mine.to_dict()))
    assert again.recipe == mine
    assert all(torch.equal(first.state[key], again.state[key]) for key in first.state)
    wrong = dataclasses.replace(mine, structure=dataclasses.replace(mine.structure, registers=3))
    with pytest.raises(RecipeError, match="is not that of timm's"):
        load_checkpoint(path, recipe=wrong)
    with pytest.raises(RecipeError, match="has no `baseline`"):
        load_checkpoint(path, recipe=dataclasses.replace(mine, baseline=""))


def test_the_schedule_of_another_recipe():
    deit = load_recipe("evo_deit_small_patch16_224")
    changed = dataclasses.replace(deit, evolution=deit.evolution.with_keep((0.7, 0.3)))
    found = timm_recipe("vit_small_patch16_224", recipe=changed)
    assert found.evolution == changed.evolution
    assert found.transform.mean == (0.5, 0.5, 0.5), "the transform is the model's own"
    with pytest.raises(RecipeError, match="is for 12 blocks, and test_vit has 6"):
        timm_recipe(NAME, recipe="evo_deit_small_patch16_224")
    with pytest.raises(RecipeError, match="family 'evo_levit'"):
        timm_recipe(NAME, recipe="evo_levit_128s_224")


def test_the_published_schedule_is_scaled():
    assert scaled_evolution(12) == load_recipe("evo_deit_small_patch16_224").evolution
    assert scaled_evolution(24).stage_starts == (8, 16)
    assert scaled_evolution(2).stage_starts == (1,)
    assert [scaled_evolution(depth).keep_ratios[0] for depth in range(2, 41)] == [1.0] * 39


def test_random_weights_are_marked_and_repeat():
    recipe = timm_recipe(NAME, image_size=64)
    a, b, c = random_checkpoint(recipe), random_checkpoint(recipe), random_checkpoint(recipe, 1)
    assert a.random
    assert a.source == "random weights (seed 0)"
    assert all(torch.equal(a.state[key], b.state[key]) for key in a.state)
    assert not torch.equal(a.state["head.weight"], c.state["head.weight"])


def test_the_note_on_accuracy_is_about_models_that_leave_patches_out():
    recipe = timm_recipe(NAME)
    assert "evovit eval" in (accuracy_note(recipe) or "")
    assert "evovit sweep" in (accuracy_note(recipe) or "")
    assert accuracy_note(dataclasses.replace(recipe, evolution=recipe.evolution.with_keep((1.0,)))) is None
    assert accuracy_note(load_recipe("evo_deit_small_patch16_224")) is None


def test_a_conversion_that_differs_from_timm_is_caught(monkeypatch):
    """The check at loading sees what the structure does not say: here, a model whose blocks do something more."""
    from timm.models import vision_transformer

    recipe = timm_recipe(NAME)
    forward = vision_transformer.Block.forward
    monkeypatch.setattr(vision_transformer.Block, "forward", lambda self, x, **rest: forward(self, x, **rest) * 1.01)
    with pytest.raises(InputError, match="outputs at keep ratio 1 differ"):
        random_checkpoint(recipe)

"""Features as outputs: timm's own at keep ratio 1; below it tokens at their places, as plain loops over timm's blocks do it."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

from evovit_deploy import InputError, load_recipe, random_checkpoint
from evovit_deploy.checkpoint import timm_recipe
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.outputs import KINDS, check_outputs, kind_of, read_outputs
from evovit_deploy.models.vanilla import build_stock, build_twin, vanilla_recipe
from evovit_deploy.recipes import Evolution, Structure
from tests.levit_reference import TINY as LEVIT
from tests.modules import module_of
from tests.timm_models import FAMILIES, checkpoint_of, evolved, images_for, timm_model

ALL = Evolution((1.0,) * 4, (1.0,) * 4, stage_starts=())
UNEVEN = Evolution((1.0, 0.7, 0.7, 0.4), (1.0, 0.8, 0.3, 0.5), stage_starts=(1, 3))
REGISTERS = "vit_small_patch14_reg4_dinov2"
HEADLESS = "vit_small_patch14_dinov2 headless"
PLAIN = ("embedding", "class_token", "patch_tokens", "block_0", "block_2", "block_3")
TINY = dataclasses.replace(
    load_recipe("evo_deit_tiny_patch16_224"),
    structure=Structure(64, 16, 32, 12, 2, num_classes=5),
)


def run(module, images):
    with torch.inference_mode():
        return dict(zip(module.output_names, module(images)))


def norms_tokens(model):
    return not isinstance(model.norm, nn.Identity)


def wanted_of(model):
    return (*PLAIN, "norm_block_1") if norms_tokens(model) else PLAIN


def close(a, b):
    """As far as sums in another order go: FP32, 1e-5 of the largest value, or of 1."""
    assert a.shape == b.shape
    return (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


def assert_features(got, model, final, states):
    """Hold the outputs against tokens [B, P + N, C]: after timm's ``forward_features``, and after every block."""
    prefix = model.num_prefix_tokens
    expected = {
        "embedding": model.forward_head(final, pre_logits=True),
        "class_token": final[:, 0],
        "patch_tokens": final[:, prefix:],
        "norm_block_1": model.norm(states[1])[:, prefix:],
        **{f"block_{i}": states[i][:, prefix:] for i in range(4)},
    }
    for name, value in got.items():
        if not name.startswith("kept_"):
            assert value.dtype == torch.float32
            assert close(value, expected[name]), name


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keep_ratio_1_is_timm(family, fold):
    model = timm_model(family)
    images = images_for(model)
    got = run(module_of(checkpoint_of(family, ALL), ModelOptions(outputs=wanted_of(model), fold=fold)), images)
    assert tuple(got) == wanted_of(model)
    assert got["patch_tokens"].shape == (3, 36, model.embed_dim)
    with torch.inference_mode():
        _, states = model.forward_intermediates(images, output_fmt="NLC", return_prefix_tokens=True)
        whole = [torch.cat((first, patches), 1) for patches, first in states]
        assert_features(got, model, model.forward_features(images), whole)


@functools.cache
def states_by_hand(family, schedule):
    """[B, P + N, C] after every block."""
    model, by_image = timm_model(family), []
    evolved(model, images_for(model), dataclasses.replace(UNEVEN, schedule=schedule), by_image)
    return list(torch.stack(by_image, 1))


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("selection", sorted(PATTERNS))
@pytest.mark.parametrize("schedule", ["stage", "layer"])
@pytest.mark.parametrize("family", [REGISTERS, "vit_small_patch16_224 avg, normed before", "deit3_small_patch16_224"])
def test_every_patch_is_at_its_place(family, schedule, selection, fold):
    model, evolution = timm_model(family), dataclasses.replace(UNEVEN, schedule=schedule)
    images, states = images_for(model), states_by_hand(family, schedule)
    options = ModelOptions(selection=selection, outputs=("kept", *wanted_of(model), "block_1"), fold=fold)
    got = run(module_of(checkpoint_of(family, evolution), options), images)
    assert_features(got, model, model.norm(states[-1]), states)


@pytest.mark.parametrize("output", [*PLAIN, "norm_block_1", "kept"])
def test_an_output_is_the_same_alone(output):
    model = timm_model(REGISTERS)
    assert output in (*wanted_of(model), "kept")
    checkpoint, images = checkpoint_of(REGISTERS, UNEVEN), images_for(model)
    every = run(module_of(checkpoint, ModelOptions(outputs=(*wanted_of(model), "kept", "logits"))), images)
    for name, value in run(module_of(checkpoint, ModelOptions(outputs=(output,))), images).items():
        assert close(value.double(), every[name].double())


def test_logits_are_those_without_features():
    """The last norm is folded into the head in one and not in the other."""
    checkpoint, images = checkpoint_of(REGISTERS, UNEVEN), images_for(timm_model(REGISTERS))
    alone = run(module_of(checkpoint), images)
    beside = run(module_of(checkpoint, ModelOptions(outputs=("logits", "embedding", "patch_tokens"))), images)
    assert list(alone) == ["logits"]
    assert close(beside["logits"], alone["logits"])


@pytest.mark.parametrize("kind", ["twin", "trimmed", "stock"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_vanilla_twin_gives_the_same_outputs(kind, pool):
    checkpoint = random_checkpoint(timm_recipe("test_vit", pool=pool), seed=5)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    build, outputs = build_stock if kind == "stock" else build_twin, (*PLAIN, "logits", "probabilities")
    options = ModelOptions(outputs=outputs, trim=kind == "trimmed")
    got = run(build(vanilla_recipe(checkpoint.recipe), options, state=checkpoint.state), images)
    assert tuple(got) == outputs
    every = checkpoint.recipe.evolution.with_keep((1.0,))
    whole = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, evolution=every))
    for name, value in run(module_of(whole, ModelOptions(outputs=outputs)), images).items():
        assert close(got[name], value), name


def test_evo_deit():
    """The head reads the embedding; patches are as the last block leaves them, since only their mean is normed."""
    checkpoint = random_checkpoint(TINY)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    got = run(module_of(checkpoint, ModelOptions(outputs=("embedding", "patch_tokens", "block_11", "logits"))), images)
    weight, bias = (checkpoint.state[f"head.{part}"] for part in ("weight", "bias"))
    assert close(nn.functional.linear(got["embedding"], weight, bias), got["logits"])
    assert torch.equal(got["patch_tokens"], got["block_11"])
    affine = (checkpoint.state[f"norm.{part}"] for part in ("weight", "bias"))
    norm = nn.functional.layer_norm(got["patch_tokens"].mean(1), (32,), *affine, 1e-6)
    assert close(norm, got["embedding"])


def test_evo_levit_and_its_twin_give_the_mean_that_their_heads_read():
    recipe = load_recipe("evo_levit_128s_224")
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for module in (
        module_of(random_checkpoint(recipe), ModelOptions(outputs=("embedding", "logits"), fold=False)),
        build_twin(vanilla_recipe(recipe), ModelOptions(outputs=("embedding", "logits"), fold=False), seed=3),
    ):
        got = run(module, images)
        assert got["embedding"].shape == (2, 384)
        with torch.inference_mode():
            heads = [head(got["embedding"]) for head in module.heads]
        assert close(sum(heads) / len(heads), got["logits"])
    stock = build_stock(vanilla_recipe(recipe), ModelOptions(outputs=("embedding",)), seed=3)
    assert close(run(stock, images)["embedding"], got["embedding"])


def test_half_precision_gives_float32():
    options = ModelOptions("fp16", outputs=("embedding", "patch_tokens", "norm_block_1"))
    checkpoint, images = checkpoint_of(REGISTERS, UNEVEN), images_for(timm_model(REGISTERS))
    exact = run(module_of(checkpoint, dataclasses.replace(options, precision="fp32")), images)
    for name, value in run(module_of(checkpoint, options), images).items():
        assert value.dtype == torch.float32
        cosine = nn.functional.cosine_similarity(value, exact[name], dim=-1)
        assert cosine.mean() > 0.999


def test_a_model_without_a_head_gives_its_embedding():
    checkpoint, images = checkpoint_of(HEADLESS), images_for(timm_model(HEADLESS))
    assert list(run(module_of(checkpoint), images)) == ["embedding"]
    assert build_twin(vanilla_recipe(checkpoint.recipe), ModelOptions(), state=checkpoint.state).output_names == (
        "embedding",
    )


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_scores_of_a_model_without_a_head_are_refused(output):
    with pytest.raises(InputError, match=f"no classification head, so there are no {output}.*--outputs embedding"):
        module_of(checkpoint_of(HEADLESS), ModelOptions(outputs=(output,)))


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [
        (REGISTERS, ("block_4",), "block_4: evo_vit_small_patch14_reg4_dinov2 has 4 blocks, from 0 to 3"),
        (REGISTERS, ("norm_block_12",), "has 4 blocks"),
        (TINY, ("norm_block_3",), "no token.*--outputs blocks=3"),
        (LEVIT, ("patch_tokens",), "patch_tokens is not there.*embedding"),
        (LEVIT, ("block_1",), "block_1 is not there: the grid shrinks"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_give_is_refused(model, outputs, words):
    checkpoint = checkpoint_of(model) if isinstance(model, str) else random_checkpoint(model)
    with pytest.raises(InputError, match=words):
        module_of(checkpoint, ModelOptions(outputs=outputs))


def test_norm_blocks_of_a_stock_model_that_norms_no_token_are_refused():
    recipe = vanilla_recipe(timm_recipe("test_vit", pool="avg"))
    with pytest.raises(InputError, match="no norm for a block"):
        build_stock(recipe, ModelOptions(outputs=("norm_block_1",)))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("logits", ("logits",)),
        ("embedding,blocks=3,6,9", ("embedding", "block_3", "block_6", "block_9")),
        ("blocks=3, 6,kept", ("block_3", "block_6", "kept")),
        ("norm_blocks=11,blocks=0,1,patch_tokens", ("norm_block_11", "block_0", "block_1", "patch_tokens")),
        ("block_3", ("block_3",)),
    ],
)
def test_outputs_are_read(text, names):
    assert read_outputs(text) == names
    check_outputs(names)
    assert {kind_of(name) for name in names} <= set(KINDS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blocks=", "'' is not the number of a block; for example: --outputs blocks=3,6,9"),
        ("blocks=a", "'a' is not the number"),
        ("blocks=-1", "'-1' is not the number"),
        ("norm_blocks=1,-1", "--outputs norm_blocks=3,6,9"),
        ("blocks=1,,2", "'' is not the number"),
        ("blocks=1,1", "outputs name block_1 twice"),
        ("blocks=1,block_1", "outputs name block_1 twice"),
        ("embedding,embedding", "embedding twice"),
        ("blocks", "For example: blocks=3,6,9"),
        ("block", "valid: logits"),
        ("3", "outputs 3; valid"),
        ("embeding", "Did you mean 'embedding'"),
        ("", "outputs missing"),
        ("block_x", "outputs block_x"),
        ("block_03", "outputs block_03"),
        ("norm_block_007", "outputs norm_block_007"),
    ],
)  # fmt: skip
def test_outputs_that_are_none(text, words):
    with pytest.raises(InputError) as caught:
        check_outputs(read_outputs(text))
    assert words in str(caught.value)

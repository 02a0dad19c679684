"""Folding of Evo-LeViT and its twin: what it removes is gone, and the function is the same."""

import pytest
import torch

from evovit_deploy.models.levit.folding import fold
from evovit_deploy.models.levit.layers import Attention, ConvNorm, Head, LinearNorm, Subsample
from evovit_deploy.models.levit.levit import EvoLevit
from evovit_deploy.models.levit.vanilla import VanillaLevit
from evovit_deploy.recipes import LevitEvolution, LevitStructure

TINY = LevitStructure(64, (16, 24), 8, (2, 3), (2, 1), num_classes=5)


def random_model(kind=EvoLevit, **options):
    """Every parameter and statistic random, so that a fold that forgets one shows."""
    more = (LevitEvolution((0.5, 0.5), 1), [0.3, 0.6, 0.4, 0.5]) if kind is EvoLevit else ()
    model = kind(TINY, *more, **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3 + 0.05)
    return model


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("kind", [EvoLevit, VanillaLevit])
@pytest.mark.parametrize("image_input", ["float32", "uint8"])
def test_folded_is_the_same_function(kind, image_input, trim):
    model = random_model(kind, image_input=image_input, trim=trim)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=generator)
    if image_input == "float32":
        images = images.permute(0, 3, 1, 2) / 64 - 2
    with torch.inference_mode():
        (expected,), (got,) = model(images), fold(model)(images)
    assert torch.allclose(expected, got, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [EvoLevit, VanillaLevit])
def test_what_is_folded_is_gone(kind):
    folded = fold(random_model(kind, image_input="uint8"))
    for module in folded.modules():
        if isinstance(module, (LinearNorm, ConvNorm, Head)):
            assert module.norm is None
        if isinstance(module, (Attention, Subsample)):
            assert module.scale == 1
        if isinstance(module, Attention):
            bias = module.qkv.linear.bias.view(module.num_heads, -1)
            assert not bias[:, module.key_dim : 2 * module.key_dim].any(), "K bias"
            assert bias[:, 2 * module.key_dim :].any(), "the V bias stays: Hardswish stands before proj"
    assert len(folded.heads) == 1
    assert len(set(folded.pixels.scale)) == 1
    if kind is EvoLevit:
        assert folded.patch_embed[-1].conv.bias is None
        assert not folded.cls_token.any()


def test_the_original_is_untouched():
    model = random_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_folding_after_conversion_is_refused():
    with pytest.raises(ValueError, match="float32"):
        fold(random_model().half())

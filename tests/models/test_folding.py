"""Folding: what it removes is gone, and the function is the same."""

import dataclasses

import pytest
import torch

from evovit_deploy.models.vit.folding import fold
from evovit_deploy.models.vit.vit import VisionTransformer
from evovit_deploy.recipes import Evolution, Structure

TINY = Structure(image_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2, num_classes=5)
EVOLVING = Evolution((1, 1, 0.5, 0.5), (1, 1, 0.5, 0.5), stage_starts=(2,))
VANILLA = Evolution((1,) * 4, (1,) * 4, stage_starts=())


def random_model(evolution=EVOLVING, pool="patches", **options) -> VisionTransformer:
    """Every parameter random, biases and norms too, so that a fold that forgets one shows."""
    model = VisionTransformer(dataclasses.replace(TINY, pool=pool), evolution, **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.05)
    return model


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize(("evolution", "pool"), [(EVOLVING, "patches"), (VANILLA, "cls"), (VANILLA, "patches")])
@pytest.mark.parametrize("image_input", ["float32", "uint8"])
def test_folded_is_the_same_function(evolution, pool, image_input, trim):
    model = random_model(evolution, pool=pool, image_input=image_input, trim=trim)
    images = (
        torch.randn(3, 3, 32, 32)
        if image_input == "float32"
        else torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    )
    with torch.inference_mode():
        (expected,), (got,) = model(images), fold(model)(images)
    assert torch.allclose(expected, got, atol=1e-5, rtol=1e-5)


def test_what_is_folded_is_gone():
    folded = fold(random_model())
    dim = TINY.embed_dim
    for block in folded.blocks:
        assert block.attn.scale == 1
        assert torch.equal(block.attn.qkv.bias[dim:], torch.zeros(2 * dim)), "K and V biases"
        for norm in (block.norm1, block.norm2):
            assert torch.equal(norm.weight, torch.ones(dim))
            assert torch.equal(norm.bias, torch.zeros(dim))
    assert folded.patch_embed.bias is None
    assert torch.equal(folded.cls_token, torch.zeros(1, 1, dim))


def test_the_original_is_untouched():
    model = random_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pixels_stay_exact_in_fp16():
    """Every pixel value, centred and scaled as folding chose, is a FP16 number: nothing is rounded before the GEMM."""
    folded = fold(random_model(image_input="uint8"))
    pixels = torch.arange(256.0)[:, None]
    exact = (pixels - folded.pixel_center) * folded.pixel_scale
    half = (pixels.half() - folded.pixel_center.half()) * folded.pixel_scale.half()
    assert torch.equal(half.float(), exact)


def test_folding_after_conversion_is_refused():
    with pytest.raises(ValueError, match="float32"):
        fold(random_model().half())

"""Both rows of operators are the same functions. What a compiler gets of them: tests/engines/test_inductor_graphs.py."""

import dataclasses

import pytest
import torch
from torch import nn

from evovit_deploy import random_checkpoint
from evovit_deploy.models.evolution import PATTERNS
from evovit_deploy.models.ops import NATIVE, ONNX, lowered, patches_by_convolution, patches_by_gemm
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, LevitEvolution, LevitStructure, Recipe, Structure
from tests.modules import module_of

VIT = Recipe(
    "tiny_vit",
    "evo_deit",
    Structure(image_size=64, patch_size=16, embed_dim=64, depth=4, num_heads=1, num_classes=7),
    Evolution((1, 0.5, 0.5, 0.5), (1, 0.5, 0.5, 0.5), stage_starts=(1, 3)),
)
LEVIT = Recipe(
    "tiny_levit",
    "evo_levit",
    LevitStructure(128, (32, 48, 64), 16, (2, 3, 4), (2, 2, 2), num_classes=7),
    LevitEvolution((0.5, 0.5, 0.5), 1),
)
CASES = [(VIT, pattern) for pattern in PATTERNS] + [(LEVIT, pattern) for pattern in ("topk", "rank", "onehot")]


def tiny(recipe, pattern, precision="fp32"):
    options = ModelOptions(precision, selection=pattern, outputs=("logits", "kept"))
    return module_of(random_checkpoint(recipe), options)


def images_of(recipe, count=2):
    size = recipe.structure.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("recipe", "pattern"), CASES, ids=lambda value: getattr(value, "name", value))
def test_native_and_onnx_operators_are_the_same_function(recipe, pattern):
    module, images = tiny(recipe, pattern), images_of(recipe)
    native = module(images)
    with lowered(module, ONNX):
        other = module(images)
    assert torch.allclose(native[0], other[0], atol=1e-5)
    for a, b in zip(native[1:], other[1:], strict=True):
        assert torch.equal(a, b)


def test_lowered_ends_with_the_block_also_on_an_error():
    module = tiny(VIT, "sort")
    inner = module.blocks[0].attn.attend

    def fails():
        with lowered(module, ONNX):
            assert module.ops is inner.ops is ONNX
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert module.ops is inner.ops is NATIVE


@pytest.mark.parametrize("patch", [1, 4, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_patch_convolution_as_a_matrix_product(patch, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 24, patch, patch, bias=bias).double()
    images = torch.randn(2, 3, 4 * patch, 4 * patch, dtype=torch.float64)
    assert torch.allclose(patches_by_gemm(conv, images), patches_by_convolution(conv, images), atol=1e-12)


def test_replacing_one_operator_is_enough_for_a_new_row():
    """A row for another runtime differs from one that exists in what it has to: nothing else is asked for."""
    calls = []

    def counted(q, k, v, bias):
        calls.append(q.shape)
        return NATIVE.attention(q, k, v, bias)

    module = tiny(VIT, "sort")
    with lowered(module, dataclasses.replace(NATIVE, attention=counted)):
        module(images_of(VIT))
    assert len(calls) == 4

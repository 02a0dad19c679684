from __future__ import annotations

import dataclasses

import pytest

from evovit_deploy.engines import FakeEngine
from evovit_deploy.engines.transform import settle_transform, transform_difference
from evovit_deploy.errors import InputError
from evovit_deploy.recipes import Transform, load_recipe

RECIPE = load_recipe("evo_deit_tiny_patch16_224")
OTHER = dataclasses.replace(RECIPE, transform=Transform(resize_ratio=1, mean=(0.5, 0.5, 0.5)))


def engine(transform: Transform | None) -> FakeEngine:
    fake = FakeEngine()
    fake.spec = dataclasses.replace(fake.spec, transform=transform)
    return fake


def test_the_exported_transform_is_the_recipes() -> None:
    assert settle_transform(engine(RECIPE.transform), RECIPE) is None
    assert settle_transform(engine(OTHER.transform), None) is None


def test_another_transform_is_refused_with_what_differs() -> None:
    with pytest.raises(InputError, match=r"resize_ratio 1 instead of 1\.14.*mean \(0\.5, 0\.5, 0\.5\) instead of"):
        settle_transform(engine(OTHER.transform), RECIPE)


def test_a_file_that_does_not_say() -> None:
    fake = engine(None)
    assert "ImageNet transform" in (settle_transform(fake, None) or "")
    assert "transform of" in (settle_transform(fake, OTHER) or "")
    assert fake.spec.transform == OTHER.transform


def test_difference() -> None:
    assert transform_difference(Transform(), Transform()) == ""
    assert (
        transform_difference(Transform(interpolation="bilinear"), Transform())
        == "interpolation bilinear instead of bicubic"
    )

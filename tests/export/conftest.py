"""Exports shared by the tests of this folder."""

from __future__ import annotations

import dataclasses

import pytest

from evovit_deploy import random_checkpoint
from evovit_deploy.recipes import Evolution, Recipe, Structure

# Four blocks are enough to select twice, restore and pool.
TINY = Recipe(
    name="evo_deit_tiny_test",
    family="evo_deit",
    structure=Structure(image_size=64, patch_size=16, embed_dim=64, depth=4, num_heads=1, num_classes=7),
    evolution=Evolution((1, 0.5, 0.5, 0.5), (1, 0.5, 0.5, 0.5), stage_starts=(1, 3)),
)

# Two select once and put back what was left out: for what does not depend on their number, since every block takes its time.
PAIR = dataclasses.replace(
    TINY,
    name="evo_deit_pair_test",
    structure=dataclasses.replace(TINY.structure, depth=2),
    evolution=Evolution((1, 0.5), (1, 0.5), stage_starts=(1,)),
)


@pytest.fixture(scope="session")
def tiny():
    """A random checkpoint of :data:`TINY`."""
    return random_checkpoint(TINY)


@pytest.fixture(scope="session")
def pair():
    """A random checkpoint of :data:`PAIR`."""
    return random_checkpoint(PAIR)

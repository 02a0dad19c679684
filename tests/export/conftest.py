"""Exports shared by the tests of this folder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evovit_deploy import load_checkpoint, random_checkpoint
from evovit_deploy.recipes import Evolution, Recipe, Structure

CASES = {"evo_deit_micro": (0.5, 0.5), "evo_deit_micro_keep70": (0.7, 0.5)}

# Four blocks are enough to select twice, restore and pool; they export in about a second.
TINY = Recipe(
    name="evo_deit_tiny_test",
    family="evo_deit",
    structure=Structure(image_size=64, patch_size=16, embed_dim=64, depth=4, num_heads=1, num_classes=7),
    evolution=Evolution((1, 0.5, 0.5, 0.5), (1, 0.5, 0.5, 0.5), stage_starts=(1, 3)),
)


@pytest.fixture(scope="session")
def tiny():
    """A random checkpoint of :data:`TINY`."""
    return random_checkpoint(TINY)


@pytest.fixture
def load_case(reference):
    """Load a reference by name: (checkpoint with its keep ratios and the schedule given, arrays)."""

    def load(name: str, schedule: str = "stage"):
        checkpoint = load_checkpoint(reference / f"{name}.pth")
        evolution = dataclasses.replace(checkpoint.recipe.evolution.with_keep(CASES[name]), schedule=schedule)
        recipe = dataclasses.replace(checkpoint.recipe, evolution=evolution)
        return dataclasses.replace(checkpoint, recipe=recipe), dict(np.load(reference / f"{name}.npz"))

    return load

"""The authors' Evo-LeViT outputs, and small models of the family."""

from __future__ import annotations

from evovit_deploy.recipes import LevitEvolution, LevitStructure, Recipe

NAME = "evo_levit_micro"

# Two stages that select, after two blocks of which the first is full; it exports in seconds.
TINY = Recipe(
    name="evo_levit_tiny_test",
    family="evo_levit",
    structure=LevitStructure(
        image_size=64, embed_dims=(16, 24), key_dim=8, num_heads=(2, 3), depths=(2, 1), num_classes=7, distilled=False
    ),
    evolution=LevitEvolution((0.5, 0.5), full_blocks=1),
)

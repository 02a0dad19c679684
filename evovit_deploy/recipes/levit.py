"""Structure and token evolution of the (Evo-)LeViT family: what differs from a plain transformer, stage by stage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import RecipeError
from .bounds import MOST, MOST_CLASSES, keep_ratios, number, whole
from .forms import kept_said

__all__ = ["LevitEvolution", "LevitStructure"]


@dataclass(frozen=True)
class LevitStructure:
    """Sizes of the network; the tensors of a checkpoint overrule them.

    Attributes:
        image_size: Pixels per side.
        embed_dims, num_heads, depths: One per stage.
        key_dim: Channels of a head's query and key; its value has twice as many, four times between stages.
        mlp_ratio: Hidden channels of an MLP, relative to the embed dim.
        num_classes: Classes.
        distilled: Whether there is a second head, for the distillation token's task; both are averaged.
    """

    image_size: int
    embed_dims: tuple[int, ...]
    key_dim: int
    num_heads: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratio: float = 2.0
    num_classes: int = 1000
    distilled: bool = True

    patch_size = 16  # four convolutions of stride 2
    prefix_tokens = 1  # the class token
    head = True

    def __post_init__(self) -> None:
        for name in ("image_size", "key_dim", "num_classes"):
            whole(f"structure.{name}", getattr(self, name), most=MOST_CLASSES if name == "num_classes" else MOST)
        number("structure.mlp_ratio", self.mlp_ratio, 0, 1024, above=True)
        for name in ("embed_dims", "num_heads", "depths"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values:
                raise RecipeError(f"structure.{name} is {values!r}; it is a list with one number per stage.")
            for value in values:
                whole(f"structure.{name}", value)
            if len(values) != len(self.embed_dims):
                raise RecipeError(
                    f"structure.{name} has {len(values)} values for {len(self.embed_dims)} stages; it has one per stage."
                )
        if not isinstance(self.distilled, bool):
            raise RecipeError(f"structure.distilled is {self.distilled!r}; valid: true, false.")
        if self.image_size % self.patch_size:
            raise RecipeError(
                f"structure.image_size {self.image_size} is not a multiple of {self.patch_size}, the stride of the stem."
            )
        if self.embed_dims[0] % 8:
            raise RecipeError(
                f"structure.embed_dims[0] {self.embed_dims[0]} is not a multiple of 8; the first convolution of the stem "
                "has an eighth of the channels."
            )
        for stage, dim in enumerate(self.embed_dims[:-1]):
            if dim % self.key_dim:
                raise RecipeError(
                    f"structure.embed_dims[{stage}] {dim} is not a multiple of structure.key_dim {self.key_dim}; the "
                    f"attention after that stage has {dim} / {self.key_dim} heads."
                )

    @property
    def grids(self) -> tuple[int, ...]:
        """Patches per side, one per stage; each stage takes every second row and column of the one before."""
        grids = [self.image_size // self.patch_size]
        for _ in self.embed_dims[1:]:
            grids.append(-(-grids[-1] // 2))
        return tuple(grids)

    @property
    def num_patches(self) -> int:
        """N of the first stage."""
        return self.grids[0] ** 2

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class LevitEvolution:
    """Token evolution in stages of different grids (paper section 3.2); the tradeoff is learned and in the checkpoint.

    Attributes:
        keep_ratios: One per group of evolved blocks, in (0, 1]. A group is a stage, in stage 1 what follows
            ``full_blocks``; if nothing does, stage 1 has no group.
        full_blocks: First blocks of stage 1, which run on all tokens.
    """

    keep_ratios: tuple[float, ...]
    full_blocks: int = 2

    def __post_init__(self) -> None:
        keep_ratios(self.keep_ratios)
        why = "before block 0 there is no class attention to select by"
        whole("evolution.full_blocks", self.full_blocks, why=why)

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        """Keep ratio of every group."""
        return self.keep_ratios

    @property
    def left_out(self) -> str:
        """How much is left out, for people: ``keep ratio 0.5``; empty where nothing is."""
        return kept_said(self.keep_ratios)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Valid schedules: every stage selects once."""
        return ("stage",)

    def with_schedule(self, schedule: str) -> LevitEvolution:
        """Return the same, which is in the only schedule there is.

        Raises:
            RecipeError: Another schedule.
        """
        if schedule != "stage":
            raise RecipeError(
                f"schedule {schedule!r} is not one of Evo-LeViT, which selects once per stage; valid: 'stage'."
            )
        return self

    def facts(self) -> dict[str, Any]:
        """Return what decides about the function."""
        return {"blocks on all tokens": self.full_blocks, "keep ratios": self.keep_ratios}

    def check(self, structure: LevitStructure) -> None:
        """Raise RecipeError if this is not the evolution of such a network."""
        if self.full_blocks > structure.depths[0]:
            raise RecipeError(
                f"evolution.full_blocks is {self.full_blocks}, but stage 1 has {structure.depths[0]} blocks."
            )
        groups = len(structure.depths) - (self.full_blocks == structure.depths[0])
        if len(self.keep_ratios) != groups:
            raise RecipeError(
                f"evolution has {len(self.keep_ratios)} keep_ratios for {groups} groups of evolved blocks; it has one per "
                f"group (stage 1 has {structure.depths[0]} blocks, and the first {self.full_blocks} run on all tokens)."
            )

    def with_keep(self, ratios: tuple[float, ...]) -> LevitEvolution:
        """Return the same groups with other keep ratios: one for all, or one per group.

        Raises:
            RecipeError: Wrong number of ratios, or a ratio outside (0, 1].
        """
        groups = len(self.keep_ratios)
        if len(ratios) == 1:
            ratios = ratios * groups
        if len(ratios) != groups:
            raise RecipeError(
                f"{len(ratios)} keep ratios given; valid: 1 (for all groups) or {groups} (one per group of evolved blocks)."
            )
        return dataclasses.replace(self, keep_ratios=ratios)

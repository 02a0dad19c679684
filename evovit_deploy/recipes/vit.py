"""Structure and token evolution of a class-token ViT: Evo-DeiT, its vanilla twin, timm's `VisionTransformer`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import RecipeError
from ..suggest import did_you_mean
from .bounds import MOST, MOST_CLASSES, keep_ratios, number, whole
from .forms import kept_said

__all__ = ["Activation", "Evolution", "Pool", "Structure"]

Pool = Literal["patches", "normed_patches", "cls", "cls_dist"]
Activation = Literal["gelu", "quick_gelu", "swiglu"]
SCHEDULES = ("stage", "layer")


@dataclass(frozen=True)
class Structure:
    """Sizes of the network; the tensors of a checkpoint overrule them.

    Tokens are the class token, then the registers, then the patches. From ``pool`` on, the defaults are those of Evo-DeiT.

    Attributes:
        image_size, patch_size: Pixels per side.
        embed_dim, depth, num_heads: C, blocks, H.
        mlp_ratio: Rows of an MLP's first layer, relative to C (`swiglu` halves them).
        num_classes: Classes; without a head C, the width of the features.
        pool: What is classified: ``patches`` the mean of the patch tokens, ``normed_patches`` the mean of their norm, ``cls``
            the class token, ``cls_dist`` class and distillation token, whose logits are averaged.
        registers: Tokens beside class token and patches. They take part in every block, without a score. A distillation
            token is one of them.
        activation: Of the MLP.
        norm_eps: Of every LayerNorm.
        pre_norm: Whether there is a LayerNorm before the first block (CLIP).
        head: Whether there is a classifier; without one the output is the pooled, normed feature.
    """

    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    pool: Pool = "patches"
    registers: int = 0
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    pre_norm: bool = False
    head: bool = True

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes"):
            whole(f"structure.{name}", getattr(self, name), most=MOST_CLASSES if name == "num_classes" else MOST)
        number("structure.mlp_ratio", self.mlp_ratio, 0, 1024, above=True)
        if self.image_size % self.patch_size:
            raise RecipeError(
                f"structure.image_size {self.image_size} is not a multiple of structure.patch_size {self.patch_size}."
            )
        if self.embed_dim % self.num_heads:
            raise RecipeError(
                f"structure.embed_dim {self.embed_dim} is not a multiple of structure.num_heads {self.num_heads}."
            )
        for name, valid in (("pool", get_args(Pool)), ("activation", get_args(Activation))):
            if getattr(self, name) not in valid:
                raise RecipeError(f"structure.{name} is {getattr(self, name)!r}; valid: {', '.join(valid)}.")
        for name in ("pre_norm", "head"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(f"structure.{name} is {getattr(self, name)!r}; valid: true, false.")
        least = int(self.pool == "cls_dist")
        whole("structure.registers", self.registers, least=least, why=f"pool is {self.pool!r}")
        number("structure.norm_eps", self.norm_eps, 0, 1, above=True)
        if not self.head and self.num_classes != self.embed_dim:
            raise RecipeError(
                f"structure.num_classes is {self.num_classes}; without a head there are as many features as channels, "
                f"{self.embed_dim}."
            )

    @property
    def num_patches(self) -> int:
        """N, the number of patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix_tokens(self) -> int:
        """P, the tokens before the patches: class token and registers."""
        return 1 + self.registers

    @property
    def classified(self) -> int:
        """How many of the first tokens the head reads; 0 when it reads the patches."""
        return {"cls": 1, "cls_dist": 2}.get(self.pool, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, without what is as in Evo-DeiT: its recipes read and hash as they did before there was
        more.
        """
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        optional = list(fields)[list(fields).index("pool") :]
        document = dataclasses.asdict(self)
        return {key: value for key, value in document.items() if key not in optional or value != fields[key]}


@dataclass(frozen=True)
class Evolution:
    """Token evolution (paper section 3.2): which tokens get the full computation, by which scores.

    Attributes:
        schedule: ``stage`` selects before each block of ``stage_starts`` and restores at the end of the stage (the
            published mode); ``layer`` selects and restores around every block whose keep ratio is below 1.
        stage_starts: First block of each stage that selects, e.g. ``(4, 8)``.
        keep_ratios: One per block, in (0, 1]; 1 keeps all patch tokens.
        tradeoff: One per block, in [0, 1]: t in s = (1 - t) s + t c.
    """

    keep_ratios: tuple[float, ...]
    tradeoff: tuple[float, ...]
    schedule: Literal["stage", "layer"] = "stage"
    stage_starts: tuple[int, ...] = (4, 8)

    @classmethod
    def whole(cls, depth: int) -> Evolution:
        """Return that of a model which keeps every patch in each of so many blocks."""
        return cls((1.0,) * depth, (1.0,) * depth, stage_starts=())

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            hint = did_you_mean(self.schedule, SCHEDULES)
            raise RecipeError(f"evolution.schedule is {self.schedule!r}; valid: 'stage', 'layer'.{hint}")
        keep_ratios(self.keep_ratios)
        for value in self.tradeoff:
            if not 0 <= value <= 1:
                raise RecipeError(f"tradeoff {value:g} is impossible; a tradeoff is between 0 and 1.")
        for start in self.stage_starts:
            whole("evolution.stage_starts", start, least=0)
        depth = len(self.keep_ratios)
        if len(self.tradeoff) != depth:
            raise RecipeError(
                f"evolution has {depth} keep_ratios and {len(self.tradeoff)} tradeoff values; both are one per block."
            )
        if list(self.stage_starts) != sorted(set(self.stage_starts)) or any(
            not 0 < start < depth for start in self.stage_starts
        ):
            raise RecipeError(
                f"evolution.stage_starts {list(self.stage_starts)} must be ascending block numbers from 1 to {depth - 1}."
            )
        if self.keep_ratios and self.keep_ratios[0] != 1:
            raise RecipeError(
                "evolution.keep_ratios[0] must be 1: before block 0 there is no class attention to select by."
            )
        if self.schedule == "stage":
            for first, stop in self.stages():
                if len(set(self.keep_ratios[first:stop])) != 1:
                    raise RecipeError(
                        f"keep ratios of blocks {first} to {stop - 1} differ; in the stage schedule they are one stage."
                    )
            before = self.stage_starts[0] if self.stage_starts else depth
            if any(ratio != 1 for ratio in self.keep_ratios[:before]):
                raise RecipeError(f"keep ratios below 1 before the first stage start, block {before}.")

    def stages(self) -> list[tuple[int, int]]:
        """Return (first block, stop) of every stage that selects, in the stage schedule."""
        return list(zip(self.stage_starts, (*self.stage_starts[1:], len(self.keep_ratios))))

    def with_keep(self, ratios: tuple[float, ...]) -> Evolution:
        """Return the same schedule with other keep ratios: one for all stages, or one per stage, or one per block.

        Raises:
            RecipeError: Wrong number of ratios, or a ratio outside (0, 1].
        """
        depth, stages = len(self.keep_ratios), self.stages()
        if len(ratios) == 1:
            ratios = ratios * len(stages)
        if len(ratios) == len(stages):
            keep = [1.0] * depth
            for (first, stop), ratio in zip(stages, ratios):
                keep[first:stop] = [ratio] * (stop - first)
        elif len(ratios) == depth:
            keep = list(ratios)
        else:
            raise RecipeError(
                f"{len(ratios)} keep ratios given; valid: 1 (for all stages), {len(stages)} (one per stage) or {depth} "
                f"(one per block)."
            )
        return dataclasses.replace(self, keep_ratios=tuple(keep))

    @property
    def stage_ratios(self) -> tuple[float, ...]:
        """Keep ratio of every stage that selects."""
        return tuple(self.keep_ratios[first] for first, _ in self.stages())

    @property
    def left_out(self) -> str:
        """How much is left out, for people: ``keep ratio 0.5, 0.7``; empty where nothing is."""
        return kept_said(self.keep_ratios)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Valid schedules."""
        return SCHEDULES

    def with_schedule(self, schedule: str) -> Evolution:
        """Return the same keep ratios in another schedule.

        Raises:
            RecipeError: No such schedule, or keep ratios that it cannot have.
        """
        return dataclasses.replace(self, schedule=schedule)  # type: ignore[arg-type]

    def check(self, structure: Structure) -> None:
        """Raise RecipeError if this is not the evolution of such a network."""
        if len(self.keep_ratios) != structure.depth:
            raise RecipeError(f"evolution has {len(self.keep_ratios)} keep_ratios for {structure.depth} blocks.")

    def facts(self) -> dict[str, Any]:
        """Return what decides about the function; keep ratios one a stage, where they change at stage starts only."""
        constant = all(len(set(self.keep_ratios[first:stop])) == 1 for first, stop in self.stages())
        return {
            "schedule": self.schedule,
            "stage starts": self.stage_starts,
            "keep ratios": self.stage_ratios if self.schedule == "stage" or constant else self.keep_ratios,
            "tradeoff": self.tradeoff,
        }

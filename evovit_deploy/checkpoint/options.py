"""How a checkpoint is understood where its file does not say, or where something else is wanted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..models.families import Rates
from ..models.vit.timm_source import accuracy_note
from ..recipes import Recipe, load_recipe
from ..storage.files import printable
from . import Checkpoint, load_checkpoint, random_checkpoint, timm_recipe, varied

__all__ = ["CheckpointOptions", "option"]


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint is understood.

    Attributes:
        recipe: Name or path of a recipe, or a recipe; None finds it.
        keep: Keep ratios, one for all stages or one per stage; None is the recipe's.
        r: Tokens merged a block, of a method that merges; None is the recipe's.
        method: What goes on a ViT of timm; None is the recipe's, or ``evo``.
        schedule: ``stage`` or ``layer``; None is the recipe's.
        num_heads: Attention heads, where neither file nor recipe says.
        image_size: Pixels a side; the position embedding is resized to it.
        ema: Use the averaged weights.
        from_timm: Name in timm of the ViT that these are the weights of.
        pool: Of a timm ViT: ``token`` or ``avg``; None is its own.
    """

    recipe: str | Recipe | None = None
    keep: tuple[float, ...] | None = None
    schedule: str | None = None
    num_heads: int | None = None
    image_size: int | None = None
    ema: bool = False
    from_timm: str | None = None
    pool: str | None = None
    method: str | None = None
    r: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.pool is not None and self.from_timm is None:
            raise InputError("--pool is for timm models; give one with --from-timm NAME.")

    @property
    def says_schedule(self) -> bool:
        """Whether anything is said of what is left out."""
        return any(value is not None for value in (self.recipe, self.method, self.keep, self.r, self.schedule))

    @property
    def given(self) -> list[str]:
        """What is asked for, by the names of the attributes."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return [name for name, value in values.items() if value is not None and value is not False]

    @property
    def fixed_in_files(self) -> list[str]:
        """What is given and only a checkpoint leaves open; a recipe may also be held against another file."""
        names = ("keep", "r", "method", "schedule", "ema", "num_heads", "image_size", "from_timm")
        return [name for name in names if getattr(self, name)]

    def weights(self, argument: Path | None, named: Path | None) -> Path | None:
        """Return the file with weights, given as the argument or, for a ViT of timm, as ``--weights``.

        Raises:
            InputError: Both are given.
        """
        if argument is not None and named is not None:
            raise InputError(
                f"{argument} and --weights {named} are both weights of --from-timm {self.from_timm}. Leave out one."
            )
        return argument or named

    def refuse_for(self, path: Path, fix: str = "Leave it out.") -> None:
        """Raise InputError for options that a file which is no checkpoint has settled."""
        if given := self.fixed_in_files:
            raise InputError(f"{option(given[0])} is for checkpoints, and {printable(path)} has it fixed. {fix}")

    def load(self, path: Path) -> Checkpoint:
        """Load a checkpoint and apply the options.

        Raises:
            InputError: Options that do not go together, or not with this model.
            CheckpointError, RecipeError: See :func:`load_checkpoint`.
        """
        found = load_checkpoint(
            path, recipe=self.recipe, num_heads=self.num_heads, image_size=self.image_size, ema=self.ema,
            timm=self.from_timm, pool=self.pool, method=self.method, keep=self.keep, r=self.r, schedule=self.schedule,
        )  # fmt: skip
        return _warned(found)

    def random(self, seed: int = 0) -> Checkpoint:
        """Return a recipe, or a ViT of timm, with seeded random weights.

        Raises:
            InputError: No recipe, or options that random weights do not have.
            RecipeError: See :func:`load_recipe`.
        """
        if self.num_heads is not None or self.ema:
            raise InputError("--num-heads and --ema are for checkpoints; random weights have neither. Leave them out.")
        if self.from_timm is not None:
            recipe = timm_recipe(
                self.from_timm, recipe=self.recipe, image_size=self.image_size, pool=self.pool, method=self.method
            )
        elif self.method is not None:
            raise InputError(
                f"--method {self.method} goes on a ViT of timm, or on a checkpoint; a recipe says its own. Leave it out."
            )
        elif self.recipe is None:
            raise InputError("--random-weights needs --recipe NAME, such as evo_deit_small_patch16_224.")
        elif self.image_size is not None:
            raise InputError("--img-size is for checkpoints and ViTs of timm; a recipe says its own. Leave it out.")
        else:
            recipe = load_recipe(self.recipe) if isinstance(self.recipe, str) else self.recipe
        found = varied(random_checkpoint(recipe, seed), Rates(self.keep, self.r), self.schedule)
        return _warned(found)


def option(name: str) -> str:
    """Return what an attribute of :class:`CheckpointOptions` is called on the command line."""
    return "--img-size" if name == "image_size" else "--" + name.replace("_", "-")


def _warned(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a note on what leaving patches out may cost."""
    warning = accuracy_note(checkpoint.recipe)
    return checkpoint if warning is None else dataclasses.replace(checkpoint, notes=(*checkpoint.notes, warning))

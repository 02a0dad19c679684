"""From a model and images to kept patches and class attention, or to merged patches, each on its own grid of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..classes.output_names import PLACES, output_of
from ..classes.scores import Ranking, probabilities, ranking
from ..engines.pytorch import TorchEngine, module_of
from ..errors import InputError
from ..models.families import family_of
from ..models.groups import group_overlap
from ..models.recording import recorded_scores
from ..recipes import Recipe, Transform

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["Explainer", "Look", "Merged", "Selected", "jaccard"]

Array = NDArray[Any]
TOP = 5


@dataclass(frozen=True)
class Selected:
    """One selection in one image.

    Attributes:
        grid: Patches per side; N = grid * grid.
        kept: [N] bool, the patches that got the full computation.
        attention: [N] float32, the evolved class attention (paper section 3.2) that the kept patches were chosen by; None
            where the model does not say; only a checkpoint does. A patch that is in a fused token has that token's.
        fused: Positions of the patches in every fused token that there is after the selection, the oldest first.
    """

    grid: int
    kept: Array
    attention: Array | None = None
    fused: tuple[Array, ...] = ()

    output = "kept"

    @property
    def count(self) -> int:
        """Patches kept."""
        return int(self.kept.sum())

    @property
    def marked(self) -> Array:
        """[N] bool, what is counted over many images."""
        return self.kept

    @property
    def listed(self) -> list[int]:
        """For JSON: the positions of the kept patches."""
        return np.flatnonzero(self.kept).tolist()  # type: ignore[no-any-return]

    def alike(self, other: Selected) -> float:
        """Compute the Jaccard index with another model's."""
        return jaccard(self.kept, other.kept)


@dataclass(frozen=True)
class Merged:
    """The tokens of one image after one merge.

    Attributes:
        grid: Patches per side; N = grid * grid.
        groups: [N] int, the token that every patch is in.
    """

    grid: int
    groups: Array

    output = "sources"
    fused: ClassVar[tuple[Array, ...]] = ()

    @property
    def count(self) -> int:
        """Tokens left."""
        return len(np.unique(self.groups))

    @property
    def marked(self) -> Array:
        """[N] bool, whether a patch shares its token with another one."""
        _, token, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        found: Array = sizes[token] > 1
        return found

    @property
    def listed(self) -> list[int]:
        """For JSON: the token of every patch."""
        return self.groups.tolist()  # type: ignore[no-any-return]

    def alike(self, other: Merged) -> float:
        """Compute the mean Jaccard index of the groups with another model's."""
        return group_overlap(self.groups, other.groups)


def jaccard(a: Array, b: Array) -> float:
    """Compute |A and B| / |A or B| of two masks [N] bool; 1 for two empty ones."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


@dataclass(frozen=True)
class Look:
    """What a model makes of one image.

    Attributes:
        selections: In order, :class:`Selected`; of a model that merges tokens :class:`Merged`.
        ranking: The most probable classes; empty if the output is not finite, None if the model gives no class scores.
    """

    selections: tuple[Any, ...]
    ranking: Ranking | None


class Explainer:
    """Looks at images through an engine that tells which patches it keeps.

    Args:
        engine: With the outputs ``kept_1``, ``kept_2``, ...: exported with ``--outputs logits,kept``, or a checkpoint's
            module with the output ``kept``. A PyTorch engine also shows the class attention. Or with ``sources_1``, ...

    Raises:
        InputError: It has no such outputs, or does not say on which grids they are.
    """

    def __init__(self, engine: Engine) -> None:
        spec = engine.spec
        self.engine = engine
        self.transform = spec.transform or Transform()
        self._names = [name for name in spec.outputs if output_of(name) in PLACES]
        if not self._names:
            raise InputError(
                f"{spec.name} does not say which patches it keeps (its outputs are {', '.join(spec.outputs)}), or keeps all. "
                "Export it with --outputs logits,kept, and a keep ratio below 1 (where tokens are merged: logits,sources, and r "
                "above 0); or give the checkpoint."
            )
        recipe = _recipe(engine)
        self.grids, fuses = family_of(recipe).grids(recipe), family_of(recipe).fuses
        self._fuses = None if fuses is None else fuses(recipe)

    def __call__(self, images: Array) -> list[Look]:
        """Look at a batch of images, [B, 3, S, S] float32 or [B, S, S, 3] uint8 as the engine takes them."""
        with recorded_scores(module_of(self.engine)) as scores:
            outputs = self.engine(images)
        ranked: list[Ranking | None] = [None] * len(images)
        if self.engine.spec.scores is not None:
            ranked = [ranking(row, TOP) if np.isfinite(row).all() else [] for row in probabilities(outputs)]
        positions = [outputs[name] for name in self._names]
        if output_of(self._names[0]) == "sources":
            return [
                Look(tuple(Merged(grid, part[image]) for grid, part in zip(self.grids, positions)), order)
                for image, order in enumerate(ranked)
            ]
        fusing = self._fuses is not None
        kept = [_mask(*each, fusing) for each in zip(positions, self.grids, self._names)]
        looks = []
        for image, order in enumerate(ranked):
            attention: list[Array | None] = [part[image] for part in scores] or [None] * len(kept)
            if self._fuses is None:
                parts = [Selected(*each) for each in zip(self.grids, (mask[image] for mask in kept), attention)]
            else:
                parts = _followed([part[image] for part in positions], self.grids[0], attention, self._fuses)
            looks.append(Look(tuple(parts), order))
        return looks


def _followed(kept: list[Array], grid: int, attention: list[Array | None], fuses: bool) -> list[Selected]:
    """The selections of one image where what is left out does not come back: which token every patch is in, from one to the next.

    Args:
        kept: [K] numbers of the tokens that are kept, one a selection.
        grid: Patches per side.
        attention: [N + F] scores by the number of the token, or None, one a selection.
        fuses: Whether the others become one token.
    """
    patches, found = grid * grid, []
    number = np.arange(patches)  # of the token that a patch is in; -1 where it is in none
    for place, (chosen, scores) in enumerate(zip(kept, attention)):
        seen = None
        if scores is not None:
            seen = np.where(number < 0, np.nanmin(scores), scores[number])
        number = np.where(np.isin(number, chosen), number, patches + place if fuses else -1)
        groups = tuple(np.flatnonzero(number == token) for token in range(patches, patches + place + 1))
        alone = number == np.arange(patches)
        found.append(Selected(grid, alone, seen, tuple(group for group in groups if group.size)))
    return found


def _recipe(engine: Engine) -> Recipe:
    """What the file or checkpoint says of itself."""
    recipe = engine.recipe if isinstance(engine, TorchEngine) else None
    if engine.spec.manifest is not None:
        recipe = Recipe.from_dict(engine.spec.manifest["recipe"], "manifest")
    if recipe is None:
        raise InputError(
            f"{engine.spec.name} was not exported by evovit, so the grid of its patches is unknown. Give the checkpoint."
        )
    return recipe


def _mask(positions: Array, grid: int, name: str, fusing: bool) -> Array:
    """[B, K] positions -> [B, grid * grid] bool; with ``fusing``, numbers beyond the grid are fused tokens."""
    size = max(grid * grid, int(positions.max(initial=0)) + 1) if fusing else grid * grid
    if positions.size and not 0 <= positions.min() <= positions.max() < size:
        raise InputError(f"{name} holds positions outside of a grid of {grid} x {grid} patches.")
    mask = np.zeros((len(positions), size), bool)
    np.put_along_axis(mask, positions, True, axis=1)
    return mask[:, : grid * grid]

"""What many images have in common: how selections overlap, where they fall, and whether another precision keeps the same.

Counted image by image, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .maps import Look

__all__ = ["Summary"]

Array = NDArray[Any]


@dataclass
class Summary:
    """Sums over images.

    Attributes:
        images: Images counted.
        output: ``kept``, or ``sources`` of a model that merges tokens.
        counts: One a selection: sum over images of the patches kept, or of the tokens left.
        frequency: One a selection: [N] how often each patch was kept, or shared its token with another one.
        overlap: (earlier, later) selection on the same grid -> sum over images of the share of the later one's patches
            that the earlier one kept too; empty where tokens are merged.
        stability: One a selection: sum over images of the Jaccard index with the reference's; empty without one.
        identical: One a selection: images with the very same patches in both models.
        same_class: Images that both models put into the same class; None where one of them gives no class scores.
    """

    images: int = 0
    output: str = "kept"
    counts: list[int] = field(default_factory=list)
    frequency: list[Array] = field(default_factory=list)
    overlap: dict[tuple[int, int], float] = field(default_factory=dict)
    stability: list[float] = field(default_factory=list)
    identical: list[int] = field(default_factory=list)
    same_class: int | None = 0

    def add(self, look: Look, reference: Look | None = None) -> None:
        """Count one image."""
        selections = look.selections
        if not self.images:
            self.output = selections[0].output
            self.frequency = [np.zeros(part.marked.size, np.int64) for part in selections]
            self.counts = [0] * len(selections)
            self.stability, self.identical = [0.0] * len(selections), [0] * len(selections)
        self.images += 1
        for number, part in enumerate(selections):
            self.frequency[number] += part.marked
            self.counts[number] += part.count
            for earlier in range(number if self.output == "kept" else 0):
                if selections[earlier].grid == part.grid:
                    share = int((selections[earlier].marked & part.marked).sum()) / part.count
                    self.overlap[earlier, number] = self.overlap.get((earlier, number), 0.0) + share
        if reference is not None:
            self._compare(look, reference)

    def _compare(self, look: Look, reference: Look) -> None:
        for number, (mine, theirs) in enumerate(zip(look.selections, reference.selections)):
            value = mine.alike(theirs)
            self.stability[number] += value
            self.identical[number] += value == 1
        if self.same_class is None or look.ranking is None or reference.ranking is None:
            self.same_class = None
        else:
            self.same_class += _class(look) is not None and _class(look) == _class(reference)

    def to_dict(self, grids: Sequence[int], compared: bool) -> dict[str, Any]:
        """Return a JSON-ready form; ``chance`` is the overlap of a random choice of as many patches."""
        count = self.images
        return {
            "images": count,
            "selections": [
                {
                    "name": f"{self.output}_{number + 1}",
                    "grid": grid,
                    "patches": grid * grid,
                    ("kept" if self.output == "kept" else "tokens"): self.counts[number] // count if count else None,
                    "frequency": (self.frequency[number] / count).round(4).tolist() if count else None,
                    "stability": self.stability[number] / count if count and compared else None,
                    "identical": self.identical[number] if count and compared else None,
                }
                for number, grid in enumerate(grids)
            ],
            "overlap": [
                {
                    "earlier": f"kept_{earlier + 1}",
                    "later": f"kept_{later + 1}",
                    "share": total / count,
                    "chance": int(self.frequency[earlier].sum()) / count / self.frequency[earlier].size,
                }
                for (earlier, later), total in self.overlap.items()
            ],
            "same_class": self.same_class if compared else None,
        }


def _class(look: Look) -> int | None:
    return look.ranking[0][0] if look.ranking else None

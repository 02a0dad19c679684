"""Puts labels into a plot where they cover neither each other nor what is plotted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Label", "place"]

Array = NDArray[Any]
Label = tuple[str, Sequence[tuple[float, float]], str]  # text, places to be beside (the first that is free), colour
# Directions from a point, in points of 1/72 inch; what is above and right reads as belonging to it most easily.
OFFSETS = (
    (6, 6),
    (6, -14),
    (-6, 6),
    (-6, -14),
    (0, 9),
    (0, -17),
    (9, -4),
    (-9, -4),
    (12, 14),
    (12, -22),
    (-12, 14),
    (-12, -22),
)
# Where a crowd leaves nothing nearer that covers no label and no mark.
FAR = tuple((x, y) for far in (14, 28) for x, y in ((6, 12 + far), (6, -20 - far), (-6, 12 + far), (-6, -20 - far)))
OVERLAP = 1000.0  # the cost of covering one
MARK = 5.0  # half the side of a mark, in the same unit
STEP = 4.0  # between the points of a line that are kept free


def place(figure: Figure, axes: Axes, labels: Iterable[Label], lines: Sequence[Array]) -> None:
    """Annotate points; where nothing is free, the place where the least is covered.

    Args:
        figure, axes: With everything else drawn: placing labels needs the final scale.
        labels: In order of importance.
        lines: [n, 2] points in data coordinates of each line that is drawn, its marks at these points.
    """
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    marks = [axes.transData.transform(line) for line in lines]
    points = np.concatenate([*map(_along, marks), np.zeros((0, 2))]) if lines else np.zeros((0, 2))
    taken = [_box(point, MARK * scale) for line in marks for point in line]
    inside = np.array(axes.get_window_extent().extents)
    for text, places, colour in labels:
        best: tuple[float, Array, Any] | None = None
        for at in places:
            for x, y in (*OFFSETS, *FAR):
                if (x, y) in FAR and best is not None and best[0] < OVERLAP:
                    break
                note = axes.annotate(
                    text,
                    at,
                    textcoords="offset points",
                    xytext=(x, y),
                    ha="left" if x > 0 else "right" if x < 0 else "center",
                    color=colour,
                    fontsize=9,
                )
                box = np.array(note.get_window_extent().extents)
                cost = _cost(box, taken, points, inside)
                if best is None or cost < best[0]:
                    if best is not None:
                        best[2].remove()
                    best = (cost, box, note)
                else:
                    note.remove()
                if not cost:
                    break
            if best is not None and not best[0]:
                break
        if best is not None:
            taken.append(best[1])


def _box(middle: Array, half: float) -> Array:
    return np.concatenate([middle - half, middle + half])


def _along(line: Array) -> Array:
    """Points close to each other on the line through [n, 2] points, in pixels."""
    parts = [line]
    for a, b in zip(line, line[1:]):
        count = int(np.hypot(*(b - a)) / STEP)
        parts.append(a + (b - a) * np.linspace(0, 1, count + 2)[1:-1, None])
    return np.concatenate(parts)


def _cost(box: Array, taken: Sequence[Array], points: Array, inside: Array) -> float:
    """How bad a place for a label is: what covers other labels and marks is worst, then what leaves the plot, then lines.

    Args:
        box: Left, lower, right and upper end of the label.
        taken: Boxes of marks and of other labels.
        points: [n, 2], on lines.
        inside: Box of the plot.
    """
    left, bottom, right, top = box
    overlaps = sum(left < c and a < right and bottom < d and b < top for a, b, c, d in taken)
    outside = left < inside[0] or bottom < inside[1] or right > inside[2] or top > inside[3]
    covered = ((points > (left, bottom)) & (points < (right, top))).all(1).sum() if len(points) else 0
    return OVERLAP * overlaps + 100.0 * outside + float(covered)

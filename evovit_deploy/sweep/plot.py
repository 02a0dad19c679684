"""Speed against accuracy as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bench.labels import along, cost_of
from .front import Outcome, front

__all__ = ["plot"]

Array = NDArray[Any]

WIDTH, HEIGHT = 760, 460
LETTER = 7.4  # width of one, about
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 46, 56
DOT, ASCENT, DESCENT = 5.0, 10.0, 3.0
# Where a name may stand, from its dot: the first of those that cover least.
PLACES = [
    (dx, dy, anchor)
    for far in (0, 14, 28)
    for dx, dy, anchor in (
        *((8, -7 - far, "start"), (8, 16 + far, "start"), (-8, -7 - far, "end"), (-8, 16 + far, "end")),
        *((0, -12 - far, "middle"), (0, 22 + far, "middle")),
    )
]


def plot(outcomes: Sequence[Outcome], title: str) -> str:
    """Return an SVG: every outcome as a dot with its intervals, the front as a line.

    Args:
        outcomes: Of one sweep.
        title: Above the picture: model, backend, data.
    """
    labelled = all(one.top1 is not None for one in outcomes)
    values = [(one.top1 if one.top1 is not None else one.agreement) * 100 for one in outcomes]
    lows = [100 * one.top1_low if one.top1_low is not None else value for one, value in zip(outcomes, values)]
    highs = [100 * one.top1_high if one.top1_high is not None else value for one, value in zip(outcomes, values)]
    x_axis = _Axis([v for one in outcomes for v in (one.speedup_low, one.speedup, one.speedup_high) if v is not None])
    y_axis = _Axis([*lows, *highs])

    def x(value: float) -> float:
        return LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="13" role="img"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="26" font-size="15" fill="#1b1b1f">{escape(title)}</text>',
    ]
    for tick in x_axis.ticks:
        parts.append(f'<path d="M{x(tick):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e5ea"/>')
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 18, f"{tick:.2f}", "middle"))
    for tick in y_axis.ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e4e5ea"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:.1f}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "speedup against the full model", "middle"))
    label = "top-1 accuracy, %" if labelled else "agreement with the full model, %"
    parts.append(f'<text transform="translate(18 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{label}</text>')
    best = front(outcomes)
    height = {one.name: value for one, value in zip(outcomes, values)}
    line = " ".join(f"{x(one.speedup):.1f},{y(height[one.name]):.1f}" for one in best)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0067c0" stroke-width="2"/>')
    drawn = [np.array([(x(one.speedup), y(height[one.name])) for one in best])]
    for one, value, low, high in zip(outcomes, values, lows, highs):
        colour = "#0067c0" if one in best else "#8a8c94"
        parts.append(f'<path d="M{x(one.speedup):.1f} {y(low):.1f}V{y(high):.1f}" stroke="{colour}" opacity=".45"/>')
        drawn.append(np.array([(x(one.speedup), y(low)), (x(one.speedup), y(high))]))
        if one.speedup_low is not None and one.speedup_high is not None:
            across = f"M{x(one.speedup_low):.1f} {y(value):.1f}H{x(one.speedup_high):.1f}"
            parts.append(f'<path d="{across}" stroke="{colour}" opacity=".45"/>')
            drawn.append(np.array([(x(one.speedup_low), y(value)), (x(one.speedup_high), y(value))]))
        parts.append(f'<circle cx="{x(one.speedup):.1f}" cy="{y(value):.1f}" r="4.5" fill="{colour}"/>')
    dots = [(x(one.speedup), y(value)) for one, value in zip(outcomes, values)]
    parts += _names([one.name for one in outcomes], dots, np.concatenate([along(line) for line in drawn]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _names(names: Sequence[str], dots: Sequence[tuple[float, float]], lines: Array) -> list[str]:
    """Each name beside its dot, where it covers no other name and no dot, and as little of the lines as may be."""
    taken = [np.array([x - DOT, y - DOT, x + DOT, y + DOT]) for x, y in dots]
    inside, parts = np.array([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM]), []
    for name, (x, y) in zip(names, dots):
        width = LETTER * len(name)
        found: list[tuple[float, int, Array, str]] = []
        for dx, dy, anchor in PLACES:
            left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = np.array([left, y + dy - ASCENT, left + width, y + dy + DESCENT])
            found.append((cost_of(box, taken, lines, inside), len(found), box, _text(x + dx, y + dy, name, anchor)))
        _, _, box, text = min(found, key=lambda one: one[:2])
        taken.append(box)
        parts.append(text)
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    halo = 'stroke="#fff" stroke-width="3" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#3b3d44" {halo}>{escape(text)}</text>'


class _Axis:
    """A range a little wider than its values, with a handful of round ticks."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        span = max(high - low, 1e-3 * max(1.0, abs(high)))
        self.low, self.high = low - 0.06 * span, high + 0.06 * span
        rough = (self.high - self.low) / 8
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = -(-self.low // step)
        self.ticks = [step * (first + i) for i in range(int((self.high - step * first) // step) + 1)]

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

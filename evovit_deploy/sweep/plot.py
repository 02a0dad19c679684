"""Speed against accuracy as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .front import Outcome, front

__all__ = ["plot"]

WIDTH, HEIGHT = 760, 460
LETTER = 7.4  # width of one, about
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 46, 56


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
    names: list[tuple[float, float, float]] = []  # left, right and height of those that are drawn
    for one, value, low, high in zip(outcomes, values, lows, highs):
        colour = "#0067c0" if one in best else "#8a8c94"
        parts.append(f'<path d="M{x(one.speedup):.1f} {y(low):.1f}V{y(high):.1f}" stroke="{colour}" opacity=".45"/>')
        if one.speedup_low is not None and one.speedup_high is not None:
            across = f"M{x(one.speedup_low):.1f} {y(value):.1f}H{x(one.speedup_high):.1f}"
            parts.append(f'<path d="{across}" stroke="{colour}" opacity=".45"/>')
        parts.append(f'<circle cx="{x(one.speedup):.1f}" cy="{y(value):.1f}" r="4.5" fill="{colour}"/>')
        end = x(one.speedup) > WIDTH - 150  # a name at the right edge stands on the left of its dot
        offset, anchor = (-8, "end") if end else (8, "start")
        left, line_y = x(one.speedup) + offset - end * LETTER * len(one.name), y(value) - 7
        while any(
            abs(line_y - b) < 13 and left < right and start < left + LETTER * len(one.name) for start, right, b in names
        ):
            line_y += 13  # below a name that is there already
        names.append((left, left + LETTER * len(one.name), line_y))
        parts.append(_text(x(one.speedup) + offset, line_y, one.name, anchor))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#3b3d44">{escape(text)}</text>'


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

"""Error and range along the depth, as one SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .report import Diagnosis, Layer

__all__ = ["draw"]

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, GAP, BOTTOM = 78, 20, 48, 34, 40


def draw(result: Diagnosis) -> str:
    """Return an SVG: above, the error of every layer; below, how much of the range it uses; in red what is to blame."""
    half = (HEIGHT - TOP - GAP - BOTTOM) / 2
    title = f"{result.model} against {result.reference}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#1b1b1f">{escape(title)}</text>',
    ]
    guilty = frozenset(culprit.node for culprit in result.culprits)
    errors = [layer.error for layer in result.layers]
    ranges = [layer.range_used for layer in result.layers]
    parts += _panel(result.layers, errors, TOP, half, "error", -6, 0, guilty)
    parts += _panel(result.layers, ranges, TOP + half + GAP, half, "of the range", -8, 1, guilty)
    starts = [i for i, layer in enumerate(result.layers) if layer.block is not None]
    last = None
    for i in starts:
        block = result.layers[i].block
        if block != last and result.layers[i].node.startswith("blocks"):
            parts.append(_text(_x(i, len(result.layers)), HEIGHT - BOTTOM + 16, str(block), "start"))
            last = block
    parts.append(
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "layers in the order of computation, by block", "middle")
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    layers: Sequence[Layer], values: Sequence[float], top: float, height: float, label: str, low: int, high: int,
    guilty: frozenset[str],
) -> list[str]:  # fmt: skip
    """One plot with a logarithmic axis from 10^low to 10^high; what is beyond stands at the edge, what is to blame is marked."""

    def y(value: float) -> float:
        power = math.log10(value) if value > 0 and math.isfinite(value) else (low if value <= 0 else high)
        return top + height * (1 - (min(max(power, low), high) - low) / (high - low))

    parts = [f'<text transform="translate(16 {top + height / 2:.0f}) rotate(-90)" text-anchor="middle">{label}</text>']
    for power in range(low, high + 1, 2):
        line = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {line:.1f}H{WIDTH - RIGHT}" stroke="#e4e5ea"/>')
        parts.append(_text(LEFT - 6, line + 4, f"1e{power}", "end"))
    points = " ".join(f"{_x(i, len(layers)):.1f},{y(value):.1f}" for i, value in enumerate(values) if value > 0)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#0067c0" stroke-width="1.5"/>')
    for i, layer in enumerate(layers):
        if layer.overflowed or layer.node in guilty:
            parts.append(
                f'<circle cx="{_x(i, len(layers)):.1f}" cy="{y(values[i]) if values[i] > 0 else top:.1f}" r="3" fill="#c42b1c">'
                f"<title>{escape(layer.node)}</title></circle>"
            )
    return parts


def _x(number: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * number / max(count - 1, 1)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#3b3d44">{escape(text)}</text>'

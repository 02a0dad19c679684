"""Kept patches and class attention, or merged patches, drawn over an image, as in the figures of the papers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..storage.files import plain
from .maps import Look, Merged

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Panel", "draw", "frequency_panel", "overview", "panel_size", "sheet", "shown", "to_jpeg"]

Array = NDArray[Any]

MIN_SIZE = 320
# A bypassed patch is grey, with so much of its contrast, from so much of white on: light, and still readable where it is dark.
CONTRAST, LIGHT = 0.4, 0.5
OUTLINE = (27, 27, 31)  # between kept and bypassed, where both are white or of one grey
HEAT = 0.62  # how much of an attention map is heat, the rest the image in grey
# Dark violet to yellow: lightness rises evenly, so that it reads in grey and to colour-blind eyes.
_ANCHORS = np.array([(13, 8, 60), (92, 22, 110), (176, 50, 90), (235, 105, 38), (251, 180, 26), (252, 250, 160)], float)
GREY = np.array([0.299, 0.587, 0.114])
ONLY_MODEL, ONLY_REFERENCE = (0, 120, 212), (216, 59, 1)  # blue, orange: told apart by all
# Fused tokens: one colour each, told apart by all (Okabe and Ito), and so much of it.
GROUPS, TINT = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66)), 0.4
_MARGIN, _CAPTION, _TITLE = 12, 22, 28
TILE = 112  # side of an image in an overview


@dataclass(frozen=True)
class Panel:
    """One picture of an image's row, [P, P, 3] uint8, with what it shows."""

    caption: str
    pixels: Array


def panel_size(image_size: int) -> int:
    """Return the side of a panel: the smallest multiple of the model's image size from 320 pixels, so that patches have whole
    pixels.
    """
    return image_size * -(-MIN_SIZE // image_size)


def draw(base: Array, look: Look, reference: Look | None = None) -> list[Panel]:
    """Return the panels of one image.

    Args:
        base: [P, P, 3] uint8, the part of the image that the model saw.
        look: What the model made of it.
        reference: What another model made of it: patches that only one of the two kept get a frame.
    """
    panels = [Panel("what the model sees", base)]
    drawn = shown(len(look.selections), look.selections[0].output) if look.selections else set()
    for number, part in enumerate(look.selections, 1):
        if number - 1 not in drawn:
            continue
        other = None if reference is None else reference.selections[number - 1]
        if isinstance(part, Merged):
            panels.append(_merged(base, part, other, number))
            continue
        if part.attention is not None:
            panels.append(Panel(f"class attention before selection {number}", _heat(base, part.attention, part.grid)))
        caption = f"selection {number}: {part.kept.sum()} of {part.kept.size} patches kept"
        if part.fused:
            caption += f", {' + '.join(str(group.size) for group in part.fused)} fused"
        pixels = _tinted(_faded(base, part.kept, part.grid), part.fused, part.grid)
        if other is not None:
            both = int((part.kept & other.kept).sum())
            caption += ", the same in both" if (part.kept == other.kept).all() else f", {both} by both"
            pixels = _framed(pixels, part.kept & ~other.kept, part.grid, ONLY_MODEL)
            pixels = _framed(pixels, other.kept & ~part.kept, part.grid, ONLY_REFERENCE)
        panels.append(Panel(caption, pixels))
    return panels


def shown(count: int, output: str) -> set[int]:
    """Return which of several selections are drawn: all; of merges, which go on block after block, three."""
    return set(range(count)) if output.startswith("kept") else {count - 1 - part * count // 3 for part in range(3)}


def _merged(base: Array, part: Merged, reference: Any, number: int) -> Panel:
    """Patches that are one token in their mean colour, with a line around what belongs together."""
    side, grid = len(base), part.grid
    token = np.unique(part.groups, return_inverse=True)[1]
    where = _upscaled(token, grid, side)
    sums = np.stack([np.bincount(where.ravel(), base[..., channel].ravel()) for channel in range(3)], -1)
    mean = (sums / np.bincount(where.ravel())[:, None])[where]
    pixels = np.where(_upscaled(part.marked, grid, side)[..., None], mean, base).astype(np.uint8)
    pixels[:, 1:][where[:, 1:] != where[:, :-1]] = OUTLINE
    pixels[1:][where[1:] != where[:-1]] = OUTLINE
    caption = f"merge {number}: {part.groups.size} patches in {part.count} tokens"
    if reference is not None:
        same = (part.groups[:, None] == part.groups) == (reference.groups[:, None] == reference.groups)
        caption += ", the same in both" if same.all() else f", {int(same.all(1).sum())} alike in both"
        pixels = _framed(pixels, ~same.all(1), grid, ONLY_MODEL)
    return Panel(caption, pixels)


def frequency_panel(share: Array, grid: int, name: str, size: int = MIN_SIZE) -> Panel:
    """Return how often each patch was kept or merged, [N] in 0 to 1, as heat on white: 0 is dark, 1 bright, the same scale
    everywhere.
    """
    side = size // grid * grid
    output, _, number = name.rpartition("_")
    what = (
        "selection {}: how often each patch is kept"
        if output == "kept"
        else "merge {}: how often a patch shares its token"
    )
    return Panel(what.format(number), _colours(_upscaled(share, grid, side)))


def _edges(size: int, grid: int) -> Array:
    """Where patches begin and end, in pixels, also where the grid does not divide the size."""
    return np.round(np.linspace(0, size, grid + 1)).astype(int)


def _upscaled(values: Array, grid: int, size: int) -> Array:
    """[N] -> [size, size], each patch one flat square: nothing is smoothed that the model did not smooth."""
    steps = np.diff(_edges(size, grid))
    return values.reshape(grid, grid).repeat(steps, 0).repeat(steps, 1)


def _faded(base: Array, kept: Array, grid: int) -> Array:
    """Kept patches as they are; bypassed ones grey and light, with a line along every kept neighbour."""
    mask = _upscaled(kept, grid, len(base)).astype(bool)
    grey = (base @ GREY) * CONTRAST + 255 * LIGHT
    pixels = np.where(mask[..., None], base, grey[..., None]).astype(np.uint8)
    near, width = np.zeros_like(mask), len(base) // MIN_SIZE
    for step in range(1, width + 1):
        near[step:] |= mask[:-step]
        near[:-step] |= mask[step:]
        near[:, step:] |= mask[:, :-step]
        near[:, :-step] |= mask[:, step:]
    pixels[near & ~mask] = OUTLINE
    return pixels


def _tinted(pixels: Array, groups: Sequence[Array], grid: int) -> Array:
    """The patches of every group in a colour of their own."""
    result = pixels.copy()
    for number, group in enumerate(groups):
        there = _upscaled(np.isin(np.arange(grid * grid), group), grid, len(pixels))
        result[there] = result[there] * (1 - TINT) + np.array(GROUPS[number % len(GROUPS)]) * TINT
    return result


def _heat(base: Array, attention: Array, grid: int) -> Array:
    """From the least (dark) to the most (bright) attention in this image."""
    values = attention.astype(float)
    span = values.max() - values.min()
    relative = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    grey = base @ GREY
    return (_colours(_upscaled(relative, grid, len(base))) * HEAT + grey[..., None] * (1 - HEAT)).astype(np.uint8)


def _colours(values: Array) -> Array:
    """[...] in 0 to 1 -> [..., 3] uint8."""
    places = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(values, places, _ANCHORS[:, channel]) for channel in range(3)], -1).astype(np.uint8)


def _framed(pixels: Array, patches: Array, grid: int, colour: tuple[int, int, int]) -> Array:
    result, edges = pixels.copy(), _edges(len(pixels), grid)
    width = max(2, len(pixels) // grid // 10)
    for position in np.flatnonzero(patches).tolist():
        row, column = divmod(position, grid)
        patch = result[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        patch[:width] = patch[-width:] = colour
        patch[:, :width] = patch[:, -width:] = colour
    return result


def sheet(title: str, panels: Sequence[Panel]) -> Image:
    """Return all panels side by side under a title, on white."""
    from PIL import Image as images
    from PIL import ImageDraw, ImageFont

    side = len(panels[0].pixels)
    width = len(panels) * (side + _MARGIN) + _MARGIN
    result = images.new("RGB", (width, _TITLE + _CAPTION + side + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(result)
    large, small = ImageFont.load_default(16), ImageFont.load_default(13)
    pen.text((_MARGIN, _MARGIN // 2 + 2), _fitted(pen, title, width - 2 * _MARGIN, large), "black", large)
    for number, panel in enumerate(panels):
        left = _MARGIN + number * (side + _MARGIN)
        pen.text((left, _TITLE + 4), _fitted(pen, panel.caption, side, small), "black", small)
        result.paste(images.fromarray(panel.pixels), (left, _TITLE + _CAPTION + _MARGIN // 2))
    return result


def overview(columns: Sequence[tuple[str, Sequence[Panel]]]) -> Image:
    """Several images in one picture: a column each, what the model sees above what each selection kept; on white.

    Args:
        columns: (words below the column, panels from :func:`draw`); maps of attention are left out.
    """
    from PIL import Image as images
    from PIL import ImageDraw, ImageFont

    kept = [(words, [panel for panel in panels if not panel.caption.startswith("class")]) for words, panels in columns]
    names = ["input", *(panel.caption.partition(":")[0].replace("selection", "kept") for panel in kept[0][1][1:])]
    font, step = ImageFont.load_default(15), TILE + _MARGIN // 2
    left = _MARGIN + max(int(font.getlength(name)) for name in names) + _MARGIN
    size = (left + len(kept) * step + _MARGIN // 2, _MARGIN + len(names) * step + _TITLE)
    result = images.new("RGB", size, "white")
    pen = ImageDraw.Draw(result)
    for row, name in enumerate(names):
        pen.text((_MARGIN, _MARGIN + row * step + TILE // 2), name, "black", font, anchor="lm")
    for column, (words, panels) in enumerate(kept):
        x = left + column * step
        for row, panel in enumerate(panels):
            tile = images.fromarray(panel.pixels).resize((TILE, TILE), images.Resampling.LANCZOS)
            result.paste(tile, (x, _MARGIN + row * step))
        below = (x + TILE // 2, _MARGIN + len(names) * step + 2)
        pen.text(below, _fitted(pen, words, TILE, font), "black", font, anchor="ma")
    return result


def _fitted(pen: Any, text: str, width: int, font: Any) -> str:
    """``text``, its middle cut out if it is too long."""
    text = plain(text)
    while pen.textlength(text, font) > width and len(text) > 4:
        half = (len(text) - 2) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text


def to_jpeg(pixels: Array) -> bytes:
    """Map [P, P, 3] uint8 -> JPEG for the gallery; the PNG files keep every pixel."""
    from PIL import Image as images

    stream = io.BytesIO()
    images.fromarray(pixels).save(stream, "JPEG", quality=88)
    return stream.getvalue()

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.explain.drawing import (
    ONLY_MODEL,
    ONLY_REFERENCE,
    OUTLINE,
    TILE,
    Panel,
    draw,
    frequency_panel,
    overview,
    panel_size,
    sheet,
    to_jpeg,
)
from evovit_deploy.explain.maps import Look, Selected

BASE = np.random.default_rng(0).integers(0, 200, (320, 320, 3), dtype=np.uint8)


def mask(*kept: int, grid: int = 4) -> np.ndarray[Any, Any]:
    result = np.zeros(grid * grid, bool)
    result[list(kept)] = True
    return result


@pytest.mark.parametrize(("size", "panel"), [(64, 320), (224, 448), (384, 384), (320, 320), (16, 320)])
def test_panels_are_whole_multiples(size: int, panel: int) -> None:
    assert panel_size(size) == panel


def test_kept_patches_are_untouched_and_bypassed_ones_faded() -> None:
    original = BASE.copy()
    panels = draw(BASE, Look((Selected(4, mask(0, 6)),), []))
    np.testing.assert_array_equal(BASE, original)
    assert [panel.caption for panel in panels] == ["what the model sees", "selection 1: 2 of 16 patches kept"]
    pixels = panels[1].pixels
    np.testing.assert_array_equal(pixels[:80, :80], BASE[:80, :80])
    np.testing.assert_array_equal(pixels[80:160, 160:240], BASE[80:160, 160:240])  # row 1, column 2
    bypassed = pixels[200:]
    assert (bypassed[..., 0] == bypassed[..., 1]).all()
    assert (bypassed[..., 1] == bypassed[..., 2]).all()
    assert bypassed.min() >= 127


@pytest.mark.parametrize("bottom", [0, 100, 195])
def test_what_is_in_a_bypassed_patch_can_be_seen_on_dark_and_on_bright_images(bottom: int) -> None:
    """A stripe of 60 levels more keeps a third of its contrast, and stays on the scale."""
    base = np.full((320, 320, 3), bottom, np.uint8)
    base[:, ::8] += 60
    pixels = draw(base, Look((Selected(4, mask(0)),), []))[1].pixels.astype(int)
    row = pixels[200, 100:300, 0]
    assert row.max() - row.min() >= 20
    assert row.max() <= 255


@pytest.mark.parametrize("level", [0, 127, 212, 255])
def test_kept_and_bypassed_are_told_apart_on_one_flat_grey(level: int) -> None:
    """Also on the grey that a bypassed patch keeps."""
    pixels = draw(np.full((320, 320, 3), level, np.uint8), Look((Selected(4, mask(0)),), []))[1].pixels
    assert (pixels[:80, :80] == level).all()
    assert (pixels[40, 80] == OUTLINE).all()
    assert (pixels[80, 40] == OUTLINE).all()
    assert (pixels[40, 81:] != OUTLINE).all()  # between kept and bypassed only


def test_an_overview_has_a_column_for_each_image() -> None:
    attention = np.arange(16, dtype=np.float32)
    look = Look((Selected(4, mask(0), attention), Selected(4, mask(5), attention)), [])
    white, black = (draw(np.full((320, 320, 3), level, np.uint8), look) for level in (255, 0))
    found = np.asarray(overview([("a", black), ("words that are too long for a column", white), ("c", black)]))
    left = found.shape[1] - 3 * (TILE + 6) - 6
    rows = [
        12 + row * (TILE + 6) + 8 for row in range(3)
    ]  # inside of the patch at the upper left, of which the first keeps it
    assert [tuple(found[y, left + 8]) for y in rows] == [(0, 0, 0), (0, 0, 0), (127, 127, 127)]
    assert [tuple(found[y, left + TILE + 6 + 8]) for y in rows] == [(255, 255, 255), (255, 255, 255), (229, 229, 229)]
    below = found[12 + 3 * (TILE + 6) :]
    assert below.shape[0] < 40
    assert (below[:, left + TILE : left + TILE + 6] == 255).all()  # cut, not run into the next


def test_a_grid_that_does_not_divide_the_panel() -> None:
    pixels = draw(BASE, Look((Selected(7, mask(0, 48, grid=7)),), []))[1].pixels
    assert pixels.shape == BASE.shape
    np.testing.assert_array_equal(pixels[-1, -1], BASE[-1, -1])


def test_attention_from_dark_to_bright() -> None:
    attention = np.zeros(16, np.float32)
    attention[5] = 3
    panels = draw(np.full((320, 320, 3), 90, np.uint8), Look((Selected(4, mask(5), attention),), []))
    assert panels[1].caption == "class attention before selection 1"
    assert panels[1].pixels[100, 100].sum() > panels[1].pixels[300, 300].sum() + 200
    flat = draw(BASE, Look((Selected(4, mask(5), np.ones(16, np.float32)),), []))
    assert np.isfinite(flat[1].pixels).all()


def test_patches_that_only_one_model_keeps_are_framed() -> None:
    panels = draw(BASE, Look((Selected(4, mask(0, 1)),), []), Look((Selected(4, mask(1, 2)),), []))
    assert panels[1].caption == "selection 1: 2 of 16 patches kept, 1 by both"
    pixels = panels[1].pixels
    assert tuple(pixels[0, 40]) == ONLY_MODEL
    assert tuple(pixels[0, 200]) == ONLY_REFERENCE
    np.testing.assert_array_equal(pixels[:80, 80:160], BASE[:80, 80:160])
    same = draw(BASE, Look((Selected(4, mask(0)),), []), Look((Selected(4, mask(0)),), []))
    assert same[1].caption.endswith("the same in both")


def test_sheet_holds_all_panels_and_cuts_long_titles() -> None:
    panels = [Panel("a", BASE), Panel("a very long caption " * 10, BASE)]
    image = sheet("x" * 500, panels)
    assert image.width == 2 * 320 + 3 * 12
    found = np.asarray(image)
    top = found.shape[0] - 12 - 320 - 6
    np.testing.assert_array_equal(found[top : top + 320, 12:332], BASE)


def test_frequency_and_jpeg() -> None:
    panel = frequency_panel(np.linspace(0, 1, 49), 7, "kept_2")
    assert panel.pixels.shape == (315, 315, 3)
    assert panel.pixels[0, 0].sum() < panel.pixels[-1, -1].sum()
    assert Image.open(io.BytesIO(to_jpeg(BASE))).size == (320, 320)

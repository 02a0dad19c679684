from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evovit_deploy.explain.drawing import (
    ONLY_MODEL,
    ONLY_REFERENCE,
    Panel,
    draw,
    frequency_panel,
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
    assert (pixels[160:] > BASE[160:]).all()


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
    panel = frequency_panel(np.linspace(0, 1, 49), 7, 2)
    assert panel.pixels.shape == (315, 315, 3)
    assert panel.pixels[0, 0].sum() < panel.pixels[-1, -1].sum()
    assert Image.open(io.BytesIO(to_jpeg(BASE))).size == (320, 320)

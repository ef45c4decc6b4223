"""Pictures: grey values, signed differences with a pure white zero, outlines, and where a tile lands in a mosaic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pathosyn import figures


def test_grey_runs_from_black_to_white_and_stays_there_beyond() -> None:
    plane = np.array([[-5.0, 0.0, 1.0, 2.0, 9.0]])
    picture = figures.grey(plane, 0.0, 2.0)
    assert picture.shape == (1, 5, 3) and picture.dtype == np.uint8
    assert picture[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    assert (picture == picture[..., :1]).all()


def test_grey_of_a_flat_plane_is_finite() -> None:
    assert figures.grey(np.ones((2, 2)), 1.0, 1.0).max() == 0


def test_signed_shows_no_change_as_pure_white_red_above_blue_below() -> None:
    picture = figures.signed(np.array([[0.0, 1.0, -1.0, 0.5, -7.0]]), 1.0)
    assert picture[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 0, 255], [255, 127, 127], [0, 0, 255]]
    tiny = figures.signed(np.array([[1e-2]]), 1.0)
    assert tiny[0, 0].tolist() != [255, 255, 255], "a change of a per cent can be seen"
    assert (figures.signed(np.zeros((2, 2)), 0.0) == 255).all()


def test_outline_is_the_masks_own_border() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    grey = figures.grey(np.zeros((9, 9)), 0, 1)
    drawn = figures.outline(grey, mask, (1, 2, 3))
    touched = (drawn != grey).any(axis=-1)
    assert touched.sum() == 16 and (touched & ~mask).sum() == 0 and not touched[4, 4]
    assert (drawn[touched] == (1, 2, 3)).all() and not grey.any(), "the picture itself is not changed"
    assert (figures.outline(grey, np.zeros((9, 9), bool)) == grey).all()


def test_window_limits_pass_over_single_hot_pixels() -> None:
    plane = np.linspace(0, 1, 10_000).reshape(100, 100)
    plane[0, 0] = 1e6
    low, high = figures.window_limits(plane)
    assert low == pytest.approx(0.005, abs=1e-3) and high == pytest.approx(0.995, abs=1e-3)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("zoom", [1, 3])
def test_mosaic_puts_each_tile_in_its_place(tmp_path: Path, flip: bool, zoom: int) -> None:
    """(y, x) planes in RAS: row 0 is posterior, so it comes last when flipped."""
    rows = [[np.full((4, 5, 3), 40 * (2 * r + c), np.uint8) for c in range(2)] for r in range(2)]
    rows[0][0][0, 0] = (255, 0, 0)
    path = tmp_path / "new" / "folder" / "sheet.png"
    figures.mosaic(rows, path, columns=("left", "right"), labels=("a", "bb"), zoom=zoom, flip=flip)
    with Image.open(path) as image:
        sheet = np.asarray(image)
    left, height, width = 10 + 6 * 2, 4 * zoom, 5 * zoom
    assert sheet.shape == (figures.TITLE + 2 * (height + figures.GAP), left + 2 * (width + figures.GAP), 3)
    for r in range(2):
        for c in range(2):
            top, start = figures.TITLE + r * (height + figures.GAP), left + c * (width + figures.GAP)
            tile = sheet[top : top + height, start : start + width]
            if (r, c) == (0, 0):
                assert tile[-1 if flip else 0, 0].tolist() == [255, 0, 0] and tile[0 if flip else -1, -1].tolist() == [0, 0, 0]
            else:
                assert (tile == 40 * (2 * r + c)).all()
    assert (sheet[: figures.TITLE] < 100).any() and (sheet[figures.TITLE :, :left] < 100).any(), "titles and labels are written"
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]

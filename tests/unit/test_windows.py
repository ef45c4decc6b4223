"""Which windows a support gets, and cutting and pasting them."""

from __future__ import annotations

import numpy as np
import pytest

from pathosyn.config import Geometry
from pathosyn.data.windows import Window, as_table, cut, paste, place, side_of, windows_of

GEOMETRY = Geometry()


def support(*boxes: tuple[int, int, int, int, int], shape: tuple[int, int, int] = (3, 300, 300)) -> np.ndarray:
    array = np.zeros(shape, bool)
    for z, y0, y1, x0, x1 in boxes:
        array[z, y0:y1, x0:x1] = True
    return array


def test_one_lesion_one_centred_window() -> None:
    assert windows_of(support((1, 100, 120, 140, 170)), GEOMETRY) == [Window(1, 78, 123, 64)]


@pytest.mark.parametrize(("extent", "side"), [(1, 64), (44, 64), (45, 96), (76, 96), (77, 128), (236, 256), (237, 288), (270, 320)])
def test_side_is_the_smallest_that_holds_the_margin(extent: int, side: int) -> None:
    assert side_of((0, extent, 0, 3), GEOMETRY, 1.0) == side


def test_margin_is_in_mm() -> None:
    assert side_of((0, 44, 0, 3), GEOMETRY, 0.5) == 96
    assert side_of((0, 44, 0, 3), GEOMETRY, 1.0) == 64


def test_near_components_share_and_distant_ones_do_not() -> None:
    near = windows_of(support((0, 100, 110, 100, 110), (0, 120, 130, 120, 130)), GEOMETRY)
    assert len(near) == 1
    far = windows_of(support((0, 20, 30, 20, 30), (0, 250, 260, 250, 260)), GEOMETRY)
    assert len(far) == 2
    assert {w.side for w in far} == {64}


def test_sharing_never_costs_more_pixels() -> None:
    # Joined, two boxes 60 px apart need a side of 96: 9216 pixels against 2 · 4096.
    apart = windows_of(support((0, 100, 110, 100, 110), (0, 100, 110, 150, 160)), GEOMETRY)
    assert [w.side for w in apart] == [64, 64]
    # A third one in the gap makes the shared window pay.
    three = windows_of(support((0, 100, 110, 100, 110), (0, 100, 110, 125, 135), (0, 100, 110, 150, 160)), GEOMETRY)
    assert sum(w.side**2 for w in three) <= 64**2 * 2


def test_components_touch_within_a_slice_only() -> None:
    windows = windows_of(support((0, 100, 110, 100, 110), (1, 100, 110, 100, 110)), GEOMETRY)
    assert [w.z for w in windows] == [0, 1]
    corner = support((0, 100, 101, 100, 101), (0, 101, 102, 101, 102))
    assert len(windows_of(corner, GEOMETRY)) == 1
    assert windows_of(np.zeros((2, 9, 9), bool), GEOMETRY) == []


def test_windows_stay_in_the_slice_where_it_is_larger() -> None:
    assert windows_of(support((0, 0, 5, 295, 300)), GEOMETRY) == [Window(0, 0, 236, 64)]
    assert place((0, 10, 0, 10), 64, (50, 300)) == (-7, 0)


def test_cut_pads_with_the_edge_or_with_zero() -> None:
    plane = np.arange(12.0).reshape(1, 3, 4)
    window = Window(0, -2, 1, 6)
    np.testing.assert_array_equal(cut(plane, window), np.pad(plane, ((0, 0), (2, 1), (0, 3)), mode="edge")[:, :, 1:])
    np.testing.assert_array_equal(cut(plane, window, mode="zero"), np.pad(plane, ((0, 0), (2, 1), (0, 3)))[:, :, 1:])
    inside = cut(plane, Window(0, 0, 1, 3))
    np.testing.assert_array_equal(inside, plane[:, :3, 1:4])
    inside[:] = -1
    assert plane.min() == 0
    assert not cut(plane, Window(0, 50, 50, 4), mode="zero").any()


def test_paste_writes_only_where_asked_and_inside() -> None:
    target = np.zeros((2, 5, 5))
    window = Window(0, 3, -1, 4)
    where = np.zeros((4, 4), bool)
    where[0, 0] = where[0, 1] = where[1, 3] = where[3, 3] = True
    paste(target, np.ones((2, 4, 4)), window, where)
    assert np.argwhere(target[1]).tolist() == [[3, 0], [4, 2]]
    assert target.sum() == 4


def test_table_counts_the_lesion_pixels_inside() -> None:
    mask = support((1, 0, 40, 0, 40))
    table = as_table([Window(1, -30, -30, 64), Window(0, 0, 0, 64)], mask)
    assert table.tolist() == [[1, -30, -30, 64, 34 * 34], [0, 0, 0, 64, 0]]
    assert table.dtype == np.int32
    assert as_table([], mask).shape == (0, 5)

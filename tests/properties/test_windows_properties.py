"""What holds for windows of any support."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pathosyn.config import Geometry
from pathosyn.data.windows import Window, cut, paste, windows_of

GEOMETRY = Geometry()
PLANES = st.tuples(st.integers(1, 150), st.integers(1, 150))
SMALL = st.integers(-20, 40)


@st.composite
def supports(draw: st.DrawFn) -> np.ndarray:
    shape = draw(PLANES)
    array = np.zeros((2, *shape), bool)
    for _ in range(draw(st.integers(0, 6))):
        z, y, x = draw(st.integers(0, 1)), draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        array[z, y : y + draw(st.integers(1, 40)), x : x + draw(st.integers(1, 40))] = True
    return array


@settings(max_examples=60, deadline=None)
@given(supports())
def test_every_component_lies_whole_in_a_window_with_its_margin(support: np.ndarray) -> None:
    windows = windows_of(support, GEOMETRY)
    structure = np.ones((3, 3), bool)
    for z, plane in enumerate(support):
        labels, count = ndimage.label(plane, structure)
        own = [w for w in windows if w.z == z]
        assert len(own) <= count
        for rows, columns in ndimage.find_objects(labels):
            assert any(_holds(w, rows, plane.shape[0], "y") and _holds(w, columns, plane.shape[1], "x") for w in own)


def _holds(window: Window, span: slice, size: int, axis: str) -> bool:
    """The span and its margin, the margin only as far as the slice goes."""
    start = getattr(window, axis)
    margin = GEOMETRY.margin_mm
    return start <= max(span.start - margin, 0) and min(span.stop + margin, size) <= start + window.side


@settings(max_examples=60, deadline=None)
@given(supports())
def test_sides_batch_and_windows_stay_inside_where_they_can(support: np.ndarray) -> None:
    _, height, width = support.shape
    windows = windows_of(support, GEOMETRY)
    assert windows == sorted(windows)
    for window in windows:
        assert window.side in GEOMETRY.buckets or window.side % 32 == 0
        for start, size in ((window.y, height), (window.x, width)):
            assert 0 <= start <= size - window.side if size > window.side else start <= 0 <= start + window.side - size


@settings(max_examples=60, deadline=None)
@given(PLANES, SMALL, SMALL, st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_paste_is_the_inverse_of_cut(shape: tuple[int, int], y: int, x: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(2, *shape))
    window = Window(0, y, x, side)
    where = rng.random((side, side)) < 0.5
    marked = np.zeros(shape, bool)
    paste(marked, np.ones((side, side), bool), window, where)
    target = np.zeros_like(plane)
    paste(target, cut(plane, window), window, where)
    np.testing.assert_array_equal(target, np.where(marked, plane, 0))
    np.testing.assert_array_equal(cut(marked, window, mode="zero") & ~where, False)


@settings(max_examples=40, deadline=None)
@given(PLANES, SMALL, SMALL, st.integers(1, 60))
def test_cut_equals_numpy_padding(shape: tuple[int, int], y: int, x: int, side: int) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
    for mode, named in (("edge", "edge"), ("zero", "constant")):
        padded = np.pad(plane, 100, mode=named)
        np.testing.assert_array_equal(cut(plane, Window(0, y, x, side), mode=mode), padded[100 + y : 100 + y + side, 100 + x : 100 + x + side])

"""Holes over healthy tissue, on which the substrate network learns: where a lesion's outline is put down."""

from __future__ import annotations

import numpy as np

from pathosyn.data.masks import box_of
from pathosyn.data.windows import Window, place

ON_HEAD = 0.75
"""A healthy hole lies on the head with at least this share of its pixels."""
TRIES = 20


def outline(rng: np.random.Generator, m: np.ndarray, blend: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mask and blend map (side, side) of a lesion window, cut to the support, turned by a multiple of 90° and mirrored at random; `step` pixels become one."""
    box = box_of(blend > 0)
    if box is None:
        raise ValueError("a lesion window without support")
    turn, mirror = int(rng.integers(4)), slice(None, None, -1 if rng.integers(2) else 1)
    m, blend = (np.rot90(array[box][::step, ::step], turn)[:, mirror] for array in (m, blend))
    return m, blend


def spot(
    rng: np.random.Generator,
    hole: np.ndarray,
    head: np.ndarray,
    own: np.ndarray | None,
    *,
    centre: tuple[float, float],
    side: int,
    origin: tuple[int, int],
    full: tuple[int, int],
    lonely: bool,
) -> tuple[int, int, int, int] | None:
    """A place for `hole` (h, w) in a slice: top-left (y, x) of its window, and of the hole in that window; None if `TRIES` places do not do.

    head, own  (H, W) bool: the foreground, and the support of the slice's own lesion, which the hole keeps off
    centre     where to try first, as shares of height and width (where a lesion lies on another head); left and right are exchanged at random, and
               the tries wander off, by 3 % of the slice at first and by 15 % in the end
    origin, full  top-left pixel of this slice in the uncropped one, and that one's shape: the window is placed as a lesion's would be
    lonely     True: no lesion anywhere in the window
    """
    height, width = head.shape
    high, wide = hole.shape
    if high > height or wide > width:
        return None
    needed = ON_HEAD * np.count_nonzero(hole)
    wander = rng.normal(size=(TRIES, 2)) * np.linspace(0.03, 0.15, TRIES)[:, None]
    across = np.where(rng.integers(2, size=TRIES), centre[1], 1 - centre[1])
    rows = np.rint((centre[0] + wander[:, 0]) * height - high / 2).astype(int)
    columns = np.rint((across + wander[:, 1]) * width - wide / 2).astype(int)
    within = (rows >= 0) & (columns >= 0) & (rows + high <= height) & (columns + wide <= width)
    for y, x in zip(rows[within].tolist(), columns[within].tolist(), strict=True):
        under = slice(y, y + high), slice(x, x + wide)
        if np.count_nonzero(head[under] & hole) < needed or (own is not None and (own[under] & hole).any()):
            continue
        top, left = place((y + origin[0], y + origin[0] + high, x + origin[1], x + origin[1] + wide), side, full)
        top, left = top - origin[0], left - origin[1]
        if lonely and own is not None and own[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)].any():
            continue
        return top, left, y - top, x - left
    return None


def centre_of(window: Window, blend: np.ndarray, shape: tuple[int, int]) -> tuple[float, float]:
    """Where the support in a window lies in its slice, as shares of height and width."""
    box = box_of(blend > 0) or (slice(0, window.side), slice(0, window.side))
    return (window.y + (box[0].start + box[0].stop) / 2) / shape[0], (window.x + (box[1].start + box[1].stop) / 2) / shape[1]

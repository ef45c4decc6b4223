"""The windows on which the networks work: small squares around the support, of a few side lengths, so that the cost follows the lesion and not the scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from scipy import ndimage

from pathosyn.config import Geometry
from pathosyn.data.masks import box_of

Box = tuple[int, int, int, int]  # y0, y1, x0, x1
_STRIDE = 32
_IN_SLICE = np.zeros((3, 3, 3), bool)
_IN_SLICE[1] = True  # pixels touch within a slice (corners count), never across slices


@dataclass(frozen=True, order=True)
class Window:
    """A square of `side` pixels in slice `z`; (y, x) is its top-left pixel, which may lie outside the slice: `cut` pads."""

    z: int
    y: int
    x: int
    side: int


def side_of(box: Box, geometry: Geometry, pixel_mm: float) -> int:
    """The smallest bucket that holds the box and the margin on both sides; beyond the last bucket the next multiple of 32."""
    need = max(box[1] - box[0], box[3] - box[2]) + 2 * ceil(geometry.margin_mm / pixel_mm)
    for side in sorted(geometry.buckets):
        if side >= need:
            return side
    return ceil(need / _STRIDE) * _STRIDE


def place(box: Box, side: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Top-left (y, x) of a window centred on the box, kept inside a slice of `shape` along every axis on which the slice is larger."""
    corner = []
    for low, high, size in ((box[0], box[1], shape[0]), (box[2], box[3], shape[1])):
        start = (low + high - side) // 2
        corner.append(min(max(start, 0), size - side) if size > side else (size - side) // 2)
    return corner[0], corner[1]


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3])


def _share(boxes: list[Box], geometry: Geometry, pixel_mm: float) -> list[Box]:
    """Join boxes, the most saving pair first, as long as one window costs no more pixels than two."""
    boxes = sorted(boxes)
    cost = [side_of(box, geometry, pixel_mm) ** 2 for box in boxes]
    while True:
        best: tuple[int, int, int, int] | None = None  # saving, -i, -j, cost
        for i in range(len(boxes)):
            for j in range(i + 1, len(boxes)):
                joint = side_of(_union(boxes[i], boxes[j]), geometry, pixel_mm) ** 2
                saving = cost[i] + cost[j] - joint
                if saving >= 0 and (best is None or (saving, -i, -j) > best[:3]):
                    best = (saving, -i, -j, joint)
        if best is None:
            return boxes
        i, j = -best[1], -best[2]
        boxes[i], cost[i] = _union(boxes[i], boxes[j]), best[3]
        del boxes[j], cost[j]


def windows_of(support: np.ndarray, geometry: Geometry, pixel_mm: float = 1.0) -> list[Window]:
    """Windows that together hold all of `support` (Z, H, W), sorted by slice.

    Each 2-D component of the support lies whole in one window. Components share a window where the shared square has no more
    pixels than their own squares together.
    """
    around = box_of(support)
    if around is None:
        return []
    top, y, x = (part.start for part in around)
    labels, _ = ndimage.label(support[around], structure=_IN_SLICE)
    by_slice: dict[int, list[Box]] = {}
    for found in ndimage.find_objects(labels):
        box = found[1].start + y, found[1].stop + y, found[2].start + x, found[2].stop + x
        by_slice.setdefault(found[0].start + top, []).append(box)
    windows = []
    for z in sorted(by_slice):
        for box in _share(by_slice[z], geometry, pixel_mm):
            side = side_of(box, geometry, pixel_mm)
            windows.append(Window(z, *place(box, side, support.shape[1:]), side))
    return sorted(windows)


def _overlap(start: int, side: int, size: int) -> tuple[slice, slice]:
    """Where a window and an axis of `size` overlap: on the axis, and in the window."""
    low, high = min(max(start, 0), size), min(max(start + side, 0), size)
    return slice(low, high), slice(low - start, high - start)


def cut(plane: np.ndarray, window: Window, *, mode: Literal["edge", "zero"] = "edge") -> np.ndarray:
    """The window's (…, side, side) of `plane` (…, H, W), a copy. Beyond the plane: its edge repeated (images) or zero (masks)."""
    height, width = plane.shape[-2:]
    rows, rows_in = _overlap(window.y, window.side, height)
    columns, columns_in = _overlap(window.x, window.side, width)
    inside = plane[..., rows, columns]
    if inside.shape[-2:] == (window.side, window.side):
        return inside.copy()
    if mode == "edge":
        y = np.clip(np.arange(window.y, window.y + window.side), 0, height - 1)
        x = np.clip(np.arange(window.x, window.x + window.side), 0, width - 1)
        return plane[..., y[:, None], x]
    patch = np.zeros((*plane.shape[:-2], window.side, window.side), plane.dtype)
    patch[..., rows_in, columns_in] = inside
    return patch


def paste(target: np.ndarray, patch: np.ndarray, window: Window, where: np.ndarray) -> None:
    """Write `patch` (…, side, side) into `target` (…, H, W) where `where` (side, side) is True; what lies outside the plane is dropped."""
    height, width = target.shape[-2:]
    rows, rows_in = _overlap(window.y, window.side, height)
    columns, columns_in = _overlap(window.x, window.side, width)
    chosen = where[rows_in, columns_in]
    target[..., rows, columns][..., chosen] = patch[..., rows_in, columns_in][..., chosen]


def as_table(windows: Iterable[Window], mask: np.ndarray) -> np.ndarray:
    """int32 (n, 5): z, y, x, side, and the number of lesion pixels of `mask` (Z, H, W) inside."""
    rows = [(w.z, w.y, w.x, w.side, int(cut(mask[w.z], w, mode="zero").sum())) for w in windows]
    return np.array(rows, np.int32).reshape(-1, 5)

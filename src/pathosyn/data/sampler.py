"""Lesion masks for slices that need one: shapes of training lesions, changed and placed where lesions lie; and masks moved or resized.

The shape is drawn first and kept: where it finds no place, places are redrawn, then its turn and its elastic change, and only then it is given up. To draw
another shape instead would make masks small, for large ones find a place less often. Everything is a function of the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import radians
from typing import NamedTuple

import numpy as np
from scipy import ndimage, signal

from pathosyn.config import Geometry
from pathosyn.data import windows
from pathosyn.data.ground import Ground, in_box
from pathosyn.data.masks import blend_map, box_of, distance_mm, grown_box, resize, shift
from pathosyn.data.shapes import CELLS, Bank, Shape, changed, in_one_piece, lowest, side_for, smooth_field
from pathosyn.data.windows import Window, cut
from pathosyn.errors import InputError

HEIGHTS = 8
"""Maps of places over the height of a stack."""
HEIGHT_WIDTH, PLACE_WIDTH = 0.15, 1.5
"""σ by which places are smoothed, over the height (0 … 1) and in cells (by the likelihood of left-out subjects)."""
FLOOR = 0.02
"""Of the mean density: brain where no training lesion lies is unlikely, not impossible."""
TURNS_DEG = (30.0, 30.0, 30.0, 180.0, 180.0, 180.0)
"""The largest turn in each attempt at one shape; there are as many attempts."""
PLACES = 6
"""Places that are drawn in each attempt."""
CARVED = 0.05
"""Share of a placed shape that may lie on fluid or off the brain: so much is cut off there and put on at the rest of the outline."""
ELASTIC = (0.04, 0.16)
"""Root mean square of the displacement, least and most, beside the shape's radius."""
ELASTIC_WIDTH = 0.6
"""Over how many radii the displacement is correlated."""
ACROSS = 4.0
"""What the log weight of a place loses for a mask that lies half on either side of the brain's middle: lesions seldom cross it."""
MOST = 0.4
"""Share of a slice's brain that no mask exceeds."""
WHOLE = 0.97
"""Share of the mask that its largest piece must have."""


@dataclass(frozen=True)
class PriorMap:
    """How likely a lesion covers each place of a brain: `density` (HEIGHTS, CELLS, CELLS) over the brain's bounding box, mean 1 at each height."""

    density: np.ndarray

    def over(self, tissue: np.ndarray, height: float) -> np.ndarray:
        """(H, W) float64: the density on a slice's brain, 0 off it. ValueError without a brain."""
        level = self.density[min(int(height * HEIGHTS), HEIGHTS - 1)]
        v, u = (np.clip(((part + 1) / 2 * CELLS).astype(int), 0, CELLS - 1) for part in in_box(tissue))
        return np.where(tissue, level[v, u], 0.0)


class Sampled(NamedTuple):
    """A placed mask (H, W) bool of `pixels` pixels, which are those of its shape, and how it came about; `tries` counts attempts, from 1."""

    mask: np.ndarray
    subject: str
    z: int
    pixels: int
    angle_deg: float
    mirrored: bool
    elastic_px: float
    centre: tuple[float, float]
    tries: int


class Placed(NamedTuple):
    """A window with its lesion m and blend map S, (side, side) float32."""

    window: Window
    m: np.ndarray
    S: np.ndarray


def prior(bank: Bank) -> PriorMap:
    """Where the lesions of the bank lie: each subject counts the same, left and right are taken as one."""
    if not bank.spots:
        return PriorMap(np.ones((HEIGHTS, CELLS, CELLS)))
    names = [spot.subject for spot in bank.spots]
    weight = np.array([1 / names.count(name) for name in names])
    share = np.stack([spot.share for spot in bank.spots])
    share = ndimage.gaussian_filter((share + share[:, :, ::-1]) / 2, (0, PLACE_WIDTH, PLACE_WIDTH), mode="nearest")
    heights = np.array([spot.height for spot in bank.spots])
    levels = (np.arange(HEIGHTS) + 0.5) / HEIGHTS
    near = weight * np.exp(-0.5 * ((levels[:, None] - heights) / HEIGHT_WIDTH) ** 2)
    density = np.tensordot(near / near.sum(axis=1, keepdims=True), share, axes=1) * CELLS**2 + FLOOR
    return PriorMap(density / density.mean(axis=(1, 2), keepdims=True))


def draw_shape(bank: Bank, rng: np.random.Generator) -> Shape:
    """Uniform over the pieces of training lesions."""
    return bank.shapes[int(rng.integers(len(bank.shapes)))]


def sample(
    places: PriorMap, ground: Ground, geometry: Geometry, rng: np.random.Generator, shape: Shape, *, turns_deg: tuple[float, ...] = TURNS_DEG
) -> Sampled | None:
    """A mask of `shape`'s size on `ground`; None where it found no place in any of its attempts.

    None says that this slice has no room, not that the shape is bad: try the same shape on another slice (`sample_on`), or large masks become rare."""
    if not ground.tissue.any():
        return None
    closed = ~ground.head | _near(ground.taken, ground, geometry)
    bad = closed | ~ground.tissue | ground.fluid
    if shape.pixels > min(int((~bad).sum()), MOST * ground.tissue.sum()):
        return None
    likely = np.log(places.over(ground.tissue, ground.height).clip(min=FLOOR / 2))
    left = in_box(ground.tissue)[1] < 0
    for attempt, most in enumerate(turns_deg, start=1):
        angle, mirrored = float(rng.uniform(-most, most)), bool(rng.integers(2))
        sdf, elastic = _elastic(shape, radians(angle), mirrored, rng)
        for corner in _places(sdf <= 0, closed, bad, likely, left, rng):
            mask = _fitted(sdf, corner, bad, shape.pixels)
            if mask is not None:
                y, x = np.nonzero(mask)
                return Sampled(mask, shape.subject, shape.z, shape.pixels, angle, mirrored, elastic, (float(y.mean()), float(x.mean())), attempt)
    return None


def sample_on(
    bank: Bank, places: PriorMap, grounds: Iterable[Ground], geometry: Geometry, rng: np.random.Generator
) -> tuple[int, Sampled] | tuple[None, Shape]:
    """A shape of the bank on the first of `grounds` that has room for it: which one, and the mask; None and the shape where none has.

    This keeps the sizes: a large lesion goes to a slice that can hold it."""
    shape = draw_shape(bank, rng)
    for number, ground in enumerate(grounds):
        found = sample(places, ground, geometry, rng, shape)
        if found is not None:
            return number, found
    return None, shape


def _near(taken: np.ndarray, ground: Ground, geometry: Geometry) -> np.ndarray:
    """Where a lesion's own support would touch `taken`."""
    reach = geometry.grow_mm + geometry.feather_mm
    return distance_mm(taken, (ground.pixel_mm,) * 2, limit=reach + ground.pixel_mm) <= reach


def _elastic(shape: Shape, angle: float, mirrored: bool, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The shape changed, its level moved so that it has as many pixels as before, and the displacement's root mean square in pixels.

    A change that tears the shape is drawn again, half as strong; the last one only turns it."""
    side, width = side_for(shape.sdf), max(ELASTIC_WIDTH * shape.radius, 2.0)
    amount = float(rng.uniform(*ELASTIC)) * shape.radius
    for part in (1.0, 0.5, 0.25, 0.0):
        moves = np.stack([smooth_field(rng, side, width) for _ in range(2)]) * (amount * part)
        sdf = changed(shape.sdf, angle=angle, mirrored=mirrored, shift=moves)
        mask = lowest(sdf, shape.pixels)
        if in_one_piece(mask):
            break
    return sdf - sdf[mask].max(), amount * part


def _places(mask: np.ndarray, closed: np.ndarray, bad: np.ndarray, likely: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Top-left corners for the array of `mask` (n, n) at which the mask keeps off `closed` and lies on `bad` with no more than `CARVED` of its pixels.

    All corners are weighed by the geometric mean of the density under the mask, less for one across the middle, and up to `PLACES` different ones drawn."""
    own, room = box_of(mask), box_of(~closed)
    if own is None or room is None:
        return []
    patch = mask[own].astype(float)[::-1, ::-1]
    if any(n > r.stop - r.start for n, r in zip(patch.shape, room, strict=True)):
        return []
    shut, over, mean, side = (signal.fftconvolve(field[room].astype(float), patch, mode="valid") for field in (closed, bad, likely, left))
    able = (shut < 0.5) & (over < CARVED * mask.sum() + 0.5)
    if not able.any():
        return []
    across = np.minimum(side, mask.sum() - side) / mask.sum()
    mean = np.where(able, mean / mask.sum() - 2 * ACROSS * across, -np.inf)
    weight = np.exp(mean - mean.max()).ravel()
    weight[weight < 1e-9] = 0.0
    count = min(PLACES, int(np.count_nonzero(weight)))
    chosen = rng.choice(weight.size, count, replace=False, p=weight / weight.sum())
    rows, columns = np.unravel_index(chosen, able.shape)
    dy, dx = room[0].start - own[0].start, room[1].start - own[1].start
    return [(int(y) + dy, int(x) + dx) for y, x in zip(rows, columns, strict=True)]


def _fitted(sdf: np.ndarray, corner: tuple[int, int], bad: np.ndarray, pixels: int) -> np.ndarray | None:
    """The shape with its array's top left at `corner`, its outline moved so that it has `pixels` pixels without any of `bad`; None if that tears it."""
    window = Window(0, *corner, sdf.shape[0])
    free = cut(~bad, window, mode="zero")
    try:
        fitted = lowest(np.where(free, sdf, np.inf), pixels)
    except ValueError:
        return None
    if not in_one_piece(fitted, WHOLE):
        return None
    mask = np.zeros(bad.shape, bool)
    windows.paste(mask, fitted, window, fitted)
    return mask


def moved(mask: np.ndarray, shift_mm: tuple[float, float], spacing: tuple[float, float], head: np.ndarray) -> np.ndarray | None:
    """`mask` (H, W) moved by whole pixels along y and x; None where part of it would leave the slice or the head."""
    try:
        result = shift(mask, spacing, shift_mm)
    except InputError:
        return None
    return None if (result & ~head).any() else result


def resized(mask: np.ndarray, extent_mm: float, spacing: tuple[float, float], head: np.ndarray) -> np.ndarray | None:
    """`mask` (H, W) with its outline `extent_mm` further out or in, stopped at the head's border; None where nothing is left."""
    result = resize(mask, spacing, extent_mm) & (head | mask)
    return result if result.any() else None


def windows_for(
    mask: np.ndarray, head: np.ndarray, geometry: Geometry, *, z: int = 0, origin: tuple[int, int] = (0, 0), full: tuple[int, int] | None = None
) -> list[Placed]:
    """The windows that `prepare` would make around a lesion `mask` (H, W) of one slice, with m and S; S is 0 off the head beyond the lesion.

    `origin` and `full`: where the arrays lie in the uncropped working grid, in which windows are placed. Windows are in the arrays' own coordinates."""
    blend = blend_map(mask, (geometry.grid_mm,) * 2, geometry) * (head | mask)
    box = box_of(blend > 0)
    if box is None:
        return []
    shape = full or tuple(mask.shape)
    support = np.zeros((1, *shape), bool)
    rows, columns = grown_box(box, (0, 0), mask.shape)
    support[0, rows.start + origin[0] : rows.stop + origin[0], columns.start + origin[1] : columns.stop + origin[1]] = blend[rows, columns] > 0
    found = [Window(z, w.y - origin[0], w.x - origin[1], w.side) for w in windows.windows_of(support, geometry, geometry.grid_mm)]
    return [Placed(w, cut(mask.astype(np.float32), w, mode="zero"), cut(blend, w, mode="zero")) for w in found]

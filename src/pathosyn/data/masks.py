"""From a lesion mask to its support: distances in mm, the blend map S, masks resized, moved or placed, and the in-plane working grid.

Arrays may have any axis order; `spacing` is mm a voxel in the array's own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np
from scipy import ndimage

from pathosyn.config import Geometry
from pathosyn.decomposition import feather
from pathosyn.errors import refuse

_SAME = 0.01  # an in-plane spacing within 1 % of the grid is taken as the grid


def box_of(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds every True of `mask`, one slice an axis; None if there is none."""
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not line.size:
            return None
        box.append(slice(int(line[0]), int(line[-1]) + 1))
        mask = mask[(slice(None),) * axis + (box[-1],)]
    return tuple(box)


def grown_box(box: Sequence[slice], reach: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """`box` with `reach` voxels more on both sides of each axis, cut at the array's edge."""
    return tuple(slice(max(b.start - r, 0), min(b.stop + r, n)) for b, r, n in zip(box, reach, shape, strict=True))


def _near(mask: np.ndarray, spacing: Sequence[float], limit: float) -> np.ndarray:
    """min(distance, limit) by one pass of shifted minima an axis.

    The squared Euclidean distance is a sum over axes, so the minimum over offsets splits into one minimum an axis; offsets beyond `limit` cannot matter.
    For a few voxels of reach this is exact and about ten times faster than the general transform.
    """
    far = np.float32(limit * limit)
    squared = np.where(mask, np.float32(0), far)
    for axis, step in enumerate(spacing):
        before = squared
        reach = min(floor(limit / step), mask.shape[axis] - 1)
        if reach < 1:
            continue
        squared = before.copy()
        for k in range(1, reach + 1):
            cost = np.float32((k * step) ** 2)
            head = (slice(None),) * axis + (slice(None, -k),)
            tail = (slice(None),) * axis + (slice(k, None),)
            shifted = before + cost
            np.minimum(squared[head], shifted[tail], out=squared[head])
            np.minimum(squared[tail], shifted[head], out=squared[tail])
    return np.sqrt(squared, out=squared)


def distance_mm(mask: np.ndarray, spacing: Sequence[float], limit: float | None = None) -> np.ndarray:
    """Distance from every voxel centre to the nearest voxel centre of `mask`, mm, float32; 0 on the mask.

    With `limit` the result is min(distance, limit), computed only around the mask. Exact Euclidean in either case.
    An empty mask is `limit` (or inf) everywhere.
    """
    mask = np.asarray(mask, bool)
    result = np.full(mask.shape, np.inf if limit is None else limit, np.float32)
    box = box_of(mask)
    if box is None:
        return result
    if limit is None:
        return ndimage.distance_transform_edt(~mask, sampling=spacing).astype(np.float32)
    reach = [floor(limit / step) for step in spacing]
    around = grown_box(box, reach, mask.shape)
    if max(reach) <= 24:
        result[around] = _near(mask[around], spacing, limit)
    else:
        result[around] = np.minimum(ndimage.distance_transform_edt(~mask[around], sampling=spacing), limit)
    return result


def blend_map(mask: np.ndarray, spacing: Sequence[float], geometry: Geometry) -> np.ndarray:
    """S in [0, 1], float32: 1 up to `grow_mm` from the lesion, then 1 - 3u² + 2u³ down to exactly 0 at `grow_mm + feather_mm`.

    u is the share of the feather that is passed. The support D is where S > 0. Every voxel of the mask has S = 1, however small the lesion is.
    """
    end = geometry.grow_mm + geometry.feather_mm
    result = np.zeros(mask.shape, np.float32)
    box = box_of(np.asarray(mask, bool))
    if box is None:
        return result
    around = grown_box(box, [floor(end / step) for step in spacing], mask.shape)
    distance = distance_mm(np.asarray(mask[around], bool), spacing, limit=end + 1.0)
    result[around] = feather(distance, grow_mm=geometry.grow_mm, feather_mm=geometry.feather_mm)
    return result


def resize(mask: np.ndarray, spacing: Sequence[float], extent_mm: float) -> np.ndarray:
    """The mask whose rim lies `extent_mm` further out (> 0) or in (< 0): a level set of the signed distance.

    Nested and monotone in `extent_mm`; shrinking by more than the lesion's inner radius leaves nothing. Beyond the array's edge the lesion is taken to go on.
    """
    mask = np.asarray(mask, bool)
    if extent_mm == 0 or not mask.any():
        return mask.copy()
    amount = abs(extent_mm)
    if extent_mm > 0:
        return distance_mm(mask, spacing, limit=amount + min(spacing)) <= np.float32(amount)
    box = box_of(mask)
    around = grown_box(box or (), [1] * mask.ndim, mask.shape)
    result = np.zeros_like(mask)
    result[around] = distance_mm(~mask[around], spacing, limit=amount + min(spacing)) > np.float32(amount)
    return result


def shift(mask: np.ndarray, spacing: Sequence[float], shift_mm: Sequence[float]) -> np.ndarray:
    """The mask moved by `shift_mm` along the array's axes, to the nearest whole voxel.

    Raises InputError where part of the lesion would leave the array.
    """
    mask = np.asarray(mask, bool)
    moved = np.zeros_like(mask)
    box = box_of(mask)
    if box is None:
        return moved
    voxels = [round(mm / step) for mm, step in zip(shift_mm, spacing, strict=True)]
    target = tuple(slice(b.start + v, b.stop + v) for b, v in zip(box, voxels, strict=True))
    if any(t.start < 0 or t.stop > n for t, n in zip(target, mask.shape, strict=True)):
        room = [(-b.start * step, (n - b.stop) * step) for b, n, step in zip(box, mask.shape, spacing, strict=True)]
        raise refuse(
            "shift",
            found=f"{tuple(float(v) for v in shift_mm)} mm, which moves part of the lesion out of the scan",
            expected="between " + " and ".join(f"{low:.0f}…{high:.0f}" for low, high in room) + " mm along the axes",
            remedy="give a smaller shift",
        )
    moved[target] = mask[box]
    return moved


def ball(shape: Sequence[int], affine: np.ndarray, centre_mm: Sequence[float], diameter_mm: float) -> np.ndarray:
    """A plain lesion at a point: True where the voxel centre lies within `diameter_mm` / 2 of `centre_mm` (world mm of `affine`); at least the nearest voxel.

    Raises InputError where the centre lies outside the grid or the diameter is not positive.
    """
    centre = np.linalg.solve(affine[:3, :3], np.asarray(centre_mm, float) - affine[:3, 3])
    nearest = np.rint(centre).astype(int)
    if not diameter_mm > 0:
        raise refuse("size", found=f"{diameter_mm:g} mm", expected="a diameter above 0 mm", remedy="give the lesion's diameter in mm")
    if (nearest < 0).any() or (nearest >= shape).any():
        corners = np.array([[0, 0, 0], [n - 1 for n in shape]]) @ affine[:3, :3].T + affine[:3, 3]
        low, high = corners.min(0), corners.max(0)
        raise refuse(
            "point",
            found=f"{tuple(float(v) for v in centre_mm)} mm, outside the scan",
            expected="x, y, z within " + ", ".join(f"{a:.0f}…{b:.0f}" for a, b in zip(low, high, strict=True)) + " mm",
            remedy="give the point in the scan's world coordinates (RAS, mm)",
        )
    reach = np.ceil(diameter_mm / 2 * np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1)).astype(int) + 1
    around = grown_box([slice(int(i), int(i) + 1) for i in nearest], [int(r) for r in reach], shape)
    grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in around], indexing="ij"), axis=-1)
    away = np.linalg.norm((grid - centre) @ affine[:3, :3].T, axis=-1)
    result = np.zeros(tuple(shape), bool)
    result[around] = away <= diameter_mm / 2
    result[tuple(nearest)] = True
    return result


def working_shape(shape: Sequence[int], spacing: Sequence[float], grid_mm: float) -> tuple[int, ...]:
    """The (…, H, W) that `in_plane` gives for an array of `shape`."""
    return (*shape[:-2], *(n if _same(step, grid_mm) else max(1, round(n * step / grid_mm)) for n, step in zip(shape[-2:], spacing[-2:], strict=True)))


def _same(step: float, grid_mm: float) -> bool:
    return abs(step / grid_mm - 1) <= _SAME


def _resample(array: np.ndarray, shape: tuple[int, ...], ratio: tuple[float, float], order: int) -> np.ndarray:
    """Slice by slice onto `shape`, grids centred on each other; `ratio` is the new step in old pixels. Smoothed first where the new grid is coarser."""
    if order and any(r > 1 for r in ratio):
        sigma = [0.0] * (array.ndim - 2) + [0.5 * max(r * r - 1, 0) ** 0.5 for r in ratio]
        array = ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="nearest")
    flat = array.reshape(-1, *array.shape[-2:])
    out = np.empty((len(flat), *shape[-2:]), array.dtype if order == 0 else np.float32)
    offset = [(n - 1) / 2 - (m - 1) / 2 * r for n, m, r in zip(flat.shape[-2:], shape[-2:], ratio, strict=True)]
    for source, target in zip(flat, out, strict=True):
        target[...] = ndimage.affine_transform(source, np.asarray(ratio), offset, output_shape=shape[-2:], order=order, mode="nearest")
    return out.reshape(shape)


def in_plane(array: np.ndarray, spacing: Sequence[float], grid_mm: float, *, order: int) -> np.ndarray:
    """(…, H, W) on the working grid of `grid_mm`, slices untouched; the array itself where both in-plane spacings are within 1 % of the grid.

    `order` is the spline's: 0 keeps labels and the dtype, 1 and above give float32. The two grids share their centre.
    """
    if all(_same(step, grid_mm) for step in spacing[-2:]):
        return array
    ratio = (1.0 if _same(spacing[-2], grid_mm) else grid_mm / spacing[-2], 1.0 if _same(spacing[-1], grid_mm) else grid_mm / spacing[-1])
    return _resample(array, working_shape(array.shape, spacing, grid_mm), ratio, order)


def back(array: np.ndarray, shape: Sequence[int], spacing: Sequence[float], grid_mm: float, *, order: int) -> np.ndarray:
    """From the working grid to the native in-plane `shape[-2:]` with `spacing`: the way back of `in_plane`; the array itself where that did nothing."""
    if all(_same(step, grid_mm) for step in spacing[-2:]):
        return array
    ratio = (1.0 if _same(spacing[-2], grid_mm) else spacing[-2] / grid_mm, 1.0 if _same(spacing[-1], grid_mm) else spacing[-1] / grid_mm)
    return _resample(array, (*array.shape[:-2], *shape[-2:]), ratio, order)

"""Which lesion, and where: the mask that an augmentation draws on. Arrays are in slices order (Z, H, W); a slice is a volume of one slice.

A source of masks is a function (free, spacing, rng) → mask, or None for no luck. `free` is True where a lesion may lie; the mask has its shape. Two come
with the package: random blobs, and the outlines of a bank of lesions, each put at a random place; any other function may take their part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathosyn.data.masks import box_of

Mask = NDArray[np.bool_]
Source = Callable[[Mask, tuple[float, float, float], np.random.Generator], Mask | None]

ON_FREE = 0.95
"""A lesion lies where it may with at least this share of its voxels; the rest of it is cut off."""
TRIES = 10
"""Outlines that are tried, each at `PLACES` places."""
PLACES = 12
LEAST = 9
"""Voxels: a smaller lesion is noise in a label."""
SIZES_MM = (10.0, 50.0)
"""Diameters of blobs where neither the user nor the weights say anything."""
SMALLEST_MM = 5.0
"""The least that is drawn of its own accord: in training slices the tip of a lesion is a pixel large."""


@dataclass(frozen=True)
class Blobs:
    """Bumpy ellipsoids of `sizes_mm` (least, largest) in diameter, uniform in its logarithm; discs in a slice."""

    sizes_mm: tuple[float, float] = SIZES_MM

    def __call__(self, free: Mask, spacing: tuple[float, float, float], rng: np.random.Generator) -> Mask | None:
        size = float(np.exp(rng.uniform(*np.log(self.sizes_mm))))
        return placed(blob(size, spacing, rng, flat=len(free) == 1), free, rng)


@dataclass(frozen=True, eq=False)
class Outlines:
    """Outlines of lesions (D, H, W) or (H, W), mirrored at random; voxels are taken as they are. In a slice: one slice of a lesion, any that shows it."""

    masks: Sequence[np.ndarray]
    _cut: list[Mask] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cut = []
        for given in self.masks:
            mask = np.asarray(given) > 0
            mask = mask[None] if mask.ndim == 2 else mask
            box = box_of(mask)
            if mask.ndim != 3 or box is None:
                raise ValueError(f"a bank holds masks (D, H, W) or (H, W) with lesion in them, not one of shape {np.shape(given)}, sum {mask.sum()}")
            cut.append(np.ascontiguousarray(mask[box]))
        if not cut:
            raise ValueError("a bank without masks")
        object.__setattr__(self, "_cut", cut)

    def __call__(self, free: Mask, spacing: tuple[float, float, float], rng: np.random.Generator) -> Mask | None:
        shape = self._cut[int(rng.integers(len(self._cut)))]
        if len(free) == 1:
            shape = shape[[int(rng.choice(np.flatnonzero(shape.any(axis=(1, 2)))))]]
        shape = shape[:, :: int(rng.choice((-1, 1))), :: int(rng.choice((-1, 1)))]
        return placed(shape, free, rng)


def sizes_of(population: Mapping[str, Any], *, flat: bool) -> tuple[float, float]:
    """Diameters of the balls, or discs, of the volumes, or areas, that the weights' training lesions have (`provenance.population`)."""
    limits = population.get("area_mm2" if flat else "volume_ml")
    if not limits:
        return SIZES_MM
    low, high = (2 * (v / np.pi) ** 0.5 if flat else (6000 * v / np.pi) ** (1 / 3) for v in limits)
    return max(low, SMALLEST_MM), max(high, SMALLEST_MM)


def blob(size_mm: float, spacing: Sequence[float], rng: np.random.Generator, *, flat: bool) -> Mask:
    """One bumpy ellipsoid of about `size_mm` in diameter, (Z, H, W) around it; `flat`: a disc, (1, H, W)."""
    axes = [1, 2] if flat else [0, 1, 2]
    stretch = np.exp(rng.normal(0, 0.18, len(axes)))
    stretch /= stretch.prod() ** (1 / len(axes))
    turn = np.linalg.qr(rng.normal(size=(len(axes), len(axes))))[0]
    reach = [0 if flat and axis == 0 else int(np.ceil(size_mm / step)) for axis, step in enumerate(spacing)]
    grid = np.meshgrid(*[np.arange(-r, r + 1) * step for r, step in zip(reach, spacing, strict=True)], indexing="ij")
    along = np.tensordot(turn, np.stack([grid[axis] for axis in axes]), axes=1)
    radius = np.sqrt(sum((a / s) ** 2 for a, s in zip(along, stretch, strict=True))) / (size_mm / 2)
    knots = [1 if flat and axis == 0 else 7 for axis in range(3)]  # bumps of about a third of the size
    bumps = ndimage.zoom(rng.normal(size=knots), [n / k for n, k in zip(radius.shape, knots, strict=True)], order=1)
    inside = radius < 1 + 0.25 * bumps
    labels, _ = ndimage.label(inside)
    middle = labels[tuple(n // 2 for n in inside.shape)]
    return labels == middle if middle else radius < 1


def placed(shape: Mask, free: Mask, rng: np.random.Generator) -> Mask | None:
    """`shape` with its middle on a random free voxel, such that enough of it is free; None where `PLACES` voxels do not do. A scan of several slices may end
    within the lesion, as scans do."""
    box = box_of(shape)
    choice = np.flatnonzero(free)
    if box is None or not choice.size:
        return None
    shape = shape[box]
    for place in rng.choice(choice, PLACES).tolist():
        corner = [int(c) - n // 2 for c, n in zip(np.unravel_index(place, free.shape), shape.shape, strict=True)]
        seen = shape[max(-corner[0], 0) : max(len(free) - corner[0], 0)]
        corner[0] = max(corner[0], 0)
        if any(c < 0 or c + n > full for c, n, full in zip(corner, seen.shape, free.shape, strict=True)):
            continue
        under = tuple(slice(c, c + n) for c, n in zip(corner, seen.shape, strict=True))
        if fits(seen, free[under]):
            mask = np.zeros(free.shape, bool)
            mask[under] = seen
            return mask
    return None


def fits(mask: Mask, free: Mask) -> bool:
    """Enough of the mask is free, and enough of it is there."""
    size = np.count_nonzero(mask)
    return bool(size >= LEAST and np.count_nonzero(mask & free) >= ON_FREE * size)


def found(source: Source, free: Mask, near: Mask, spacing: tuple[float, float, float], rng: np.random.Generator) -> Mask | None:
    """The first mask of `source` that fits and stays off `near` (lesions that are there already, with their margin), cut to what is free."""
    for _ in range(TRIES):
        mask = source(free, spacing, rng)
        if mask is None:
            continue
        if mask.shape != free.shape:
            raise ValueError(f"a source of masks must give one of the image's shape {free.shape}, got {mask.shape}")
        mask = np.asarray(mask, bool)
        if fits(mask, free) and not (mask & near).any():
            return mask & free
    return None

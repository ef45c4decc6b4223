"""Native intensities to the networks' units and back (DESIGN §3, row 19)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CLIP = 10.0
"""The networks see values clipped to ±CLIP: half precision on disk, and single voxels at the end of the dtype (32767 in BraTS)."""

_NORMAL_80 = 2.563
"""p90 - p10 of a standard normal distribution."""
_FEWEST = 50
"""Voxels below which percentiles say nothing."""
_SAMPLE = 200_000
"""About as many voxels of a volume decide on its threshold."""


@dataclass(frozen=True)
class Normaliser:
    """normalised = (native - center) / scale; `scale` > 0."""

    center: float
    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a normaliser needs a finite center and a positive scale, not {self.center} and {self.scale}")

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Native units, any shape → float32, about 0 ± 1 over the foreground; not clipped."""
        result = np.subtract(values, self.center, dtype=np.float32)
        result /= np.float32(self.scale)
        return result

    def invert(self, values: np.ndarray) -> np.ndarray:
        """float32 in native units."""
        result = np.multiply(values, self.scale, dtype=np.float32)
        result += np.float32(self.center)
        return result


def fit_normaliser(values: np.ndarray, foreground: np.ndarray, exclude: np.ndarray | None = None) -> Normaliser:
    """Median and (p90 - p10) / 2.563 over `foreground` without `exclude` (the grown lesion); arrays of one shape, native units.

    Where too little healthy foreground is left, the whole foreground is used, then the whole array; where the percentiles coincide, the standard deviation.
    ValueError for a constant array.
    """
    healthy = foreground if exclude is None else foreground & ~exclude
    for region in (healthy, foreground, np.ones_like(foreground)):
        sample = values[region]
        if sample.size < min(_FEWEST, values.size):
            continue
        low, center, high = (float(v) for v in np.percentile(sample, (10, 50, 90)))
        scale = (high - low) / _NORMAL_80 or float(sample.std(dtype=np.float64))
        if scale > 0:
            return Normaliser(center, scale)
    raise ValueError("every voxel has the same value: no scale to normalise by")


def foreground(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Head or brain against background: bool, of the shape of the arrays, from one array a contrast in native units; any axis order.

    Per contrast a threshold above the background's own noise; then a majority of the contrasts (either of two), small specks dropped, holes filled in
    every plane. Background that cannot be seen (a scan cropped to tissue) gives all True.
    """
    if not volumes:
        raise ValueError("foreground needs at least one contrast")
    votes = np.zeros(volumes[0].shape, dtype=np.uint8)
    for volume in volumes:
        votes += volume > _background_threshold(volume)
    return _cleaned(votes >= (len(volumes) + 1) // 2)


def _background_threshold(volume: np.ndarray) -> float:
    """The value above which a voxel is tissue: over the background's median by five of its robust standard deviations
    and by a share of the step to tissue.

    The two classes are split where the split is halfway between their means (Ridler & Calvard 1978), on values clipped at their 99th percentile.
    """
    sample = volume.reshape(-1, order="A")[:: max(1, volume.size // _SAMPLE | 1)].astype(np.float32)
    np.minimum(sample, np.percentile(sample, 99), out=sample)
    split = float(sample.mean())
    for _ in range(50):
        dark, bright = sample[sample <= split], sample[sample > split]
        if not bright.size:
            return -np.inf
        moved = (float(dark.mean()) + float(bright.mean())) / 2
        if abs(moved - split) <= 1e-4 * abs(split):
            break
        split = moved
    level, tissue = float(np.median(dark)), float(np.median(bright))
    noise = 1.4826 * float(np.median(np.abs(dark - level)))
    if noise > 0.2 * (tissue - level):  # the dark class is as varied as tissue is: no background in view
        return -np.inf
    # Air beside the head shines in scans corrected for their coil. Where a tool has written one value round the brain, everything above it is brain.
    share = 0.03 if float((dark == level).mean()) > 0.8 else 0.15
    return level + max(5 * noise, share * (tissue - level))


def _cleaned(raw: np.ndarray) -> np.ndarray:
    """Without components below 2 % of the largest, and with the holes of every plane of every axis filled."""
    labels, count = ndimage.label(raw)
    if count == 0:
        return np.ones_like(raw)
    sizes = np.bincount(labels.ravel(order="K"))
    sizes[0] = 0
    kept = (sizes >= 0.02 * sizes.max())[labels]
    box = ndimage.find_objects(kept.astype(np.uint8))[0]
    inside = kept[box]
    filled = inside.copy()
    for axis in range(inside.ndim):
        filled |= ~inside & ~_open_in_plane(~inside, axis)
    kept[box] = filled
    return kept


def _open_in_plane(background: np.ndarray, axis: int) -> np.ndarray:
    """Where `background` is connected to the border of its plane across `axis`."""
    structure = ndimage.generate_binary_structure(background.ndim, 1)
    structure.swapaxes(0, axis)[[0, 2]] = False  # planes apart
    labels, count = ndimage.label(background, structure)
    reaches = np.zeros(count + 1, dtype=bool)
    for other in range(background.ndim):
        if other != axis:
            reaches[labels.take([0, -1], axis=other)] = True
    reaches[0] = False
    return reaches[labels]

"""Native intensities to the networks' units and back (DESIGN §3, row 19)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from pathosyn.data.runs import Runs, components, overlapping, runs_of

CLIP = 10.0
"""The networks see values clipped to ±CLIP: half precision on disk, and single voxels at the end of the dtype (32767 in BraTS)."""

_NORMAL_80 = 2.563
"""p90 - p10 of a standard normal distribution."""
_FEWEST = 50
"""Voxels below which percentiles say nothing."""
_LOW_FIRST = sys.byteorder == "little"
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


def write_half(normaliser: Normaliser, values: np.ndarray, target: np.ndarray) -> None:
    """`values` (Z, H, W) normalised and clipped to ±CLIP into `target` (Z, H, W) float16.

    Every value of a small integer type is converted once and looked up, bytes in pairs: numpy makes half precision slowly.
    """
    if _is_small_integer(values.dtype):
        every = np.arange(1 << 8 * values.dtype.itemsize).astype(_unsigned(values.dtype))
        table = np.clip(normaliser.apply(every.view(values.dtype)), -CLIP, CLIP).astype(np.float16)
        pairs = np.stack(np.broadcast_arrays(table, table[:, None]), axis=-1).view(np.uint32).reshape(-1) if len(table) == 256 and _LOW_FIRST else None
        for plane, out in zip(values, target, strict=True):
            looked_up = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
            _look_up(table, pairs, plane.reshape(-1).view(every.dtype), looked_up.reshape(-1))
            if looked_up is not out:
                out[...] = looked_up
        return
    for plane, out in zip(values, target, strict=True):
        out[...] = np.clip(normaliser.apply(plane), -CLIP, CLIP)


def _look_up(table: np.ndarray, pairs: np.ndarray | None, places: np.ndarray, out: np.ndarray) -> None:
    """table[places] into `out`, (n,) each; `pairs` [second, first] of uint32 holds two entries of the table side by side."""
    done = 0
    if pairs is not None:
        done = len(places) // 2 * 2
        pairs.take(places[:done].view(np.uint16), out=out[:done].view(np.uint32), mode="clip")
    table.take(places[done:], out=out[done:], mode="clip")  # no index is out of range; the default mode would copy


def _is_small_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def _bins(sample: np.ndarray) -> np.ndarray:
    """How often each value of an unsigned type of one or two bytes occurs; bytes are counted in pairs, in half the time."""
    if sample.dtype.itemsize == 2:
        return np.bincount(sample, minlength=1 << 16)
    even = np.ascontiguousarray(sample[: len(sample) // 2 * 2])
    pairs = np.bincount(even.view(np.uint16), minlength=1 << 16).reshape(256, 256)
    return pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(sample[len(even) :], minlength=256)


@dataclass(frozen=True)
class _Counted:
    """A sample in ascending order: its distinct values (k,) float64, and how many of the sample are up to each of them (k,)."""

    values: np.ndarray
    upto: np.ndarray

    @staticmethod
    def of(sample: np.ndarray) -> _Counted:
        if _is_small_integer(sample.dtype):
            bins = _bins(sample.reshape(-1).view(_unsigned(sample.dtype)))
            lowest = int(np.iinfo(sample.dtype).min)
            bins = np.roll(bins, -lowest)  # negative numbers stand in the upper half
            there = np.flatnonzero(bins)
            return _Counted((there + lowest).astype(np.float64), np.cumsum(bins[there]))
        values, counts = np.unique(sample, return_counts=True)
        return _Counted(values.astype(np.float64), np.cumsum(counts))

    @property
    def size(self) -> int:
        return int(self.upto[-1])

    def quantile(self, share: float) -> float:
        """As numpy's percentile at 100 · `share`, between two values linearly."""
        place = share * (self.size - 1)
        below = int(place)
        low, high = self.values[np.searchsorted(self.upto, [below, min(below + 1, self.size - 1)], side="right")]
        return float(low + (high - low) * (place - below))

    def up_to(self, limit: float) -> _Counted:
        """The part at or below `limit`."""
        end = int(np.searchsorted(self.values, limit, side="right"))
        return _Counted(self.values[:end], self.upto[:end])

    def above(self, limit: float) -> _Counted:
        """The part above `limit`."""
        start = int(np.searchsorted(self.values, limit, side="right"))
        return _Counted(self.values[start:], self.upto[start:] - (self.upto[start - 1] if start else 0))

    def distances(self, centre: float) -> _Counted:
        """Of |value - centre|."""
        away = np.abs(self.values - centre)
        order = np.argsort(away)
        return _Counted(away[order], np.cumsum(np.diff(self.upto, prepend=0)[order]))

    def clipped(self, highest: float) -> _Counted:
        return _Counted(np.minimum(self.values, highest), self.upto)


def fit_normaliser(values: np.ndarray, foreground: np.ndarray, exclude: np.ndarray | None = None) -> Normaliser:
    """Median and (p90 - p10) / 2.563 over `foreground` without `exclude` (the grown lesion); arrays of one shape, native units.

    Where too little healthy foreground is left, the whole foreground is used, then the whole array; where the percentiles coincide, the standard deviation.
    ValueError for a constant array.
    """
    healthy = foreground if exclude is None else foreground & ~exclude
    for region in (healthy, foreground, ...):
        sample = values[region].reshape(-1)
        if sample.size < min(_FEWEST, values.size):
            continue
        low, center, high = _percentiles(sample)
        scale = (high - low) / _NORMAL_80 or float(sample.std(dtype=np.float64))
        if scale > 0:
            return Normaliser(center, scale)
    raise ValueError("every voxel has the same value: no scale to normalise by")


def _percentiles(sample: np.ndarray) -> tuple[float, float, float]:
    """p10, median and p90 of all of `sample` (n,)."""
    if _is_small_integer(sample.dtype):
        counted = _Counted.of(sample)
        return counted.quantile(0.1), counted.quantile(0.5), counted.quantile(0.9)
    low, center, high = np.percentile(sample, (10, 50, 90))
    return float(low), float(center), float(high)


def foreground(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Head or brain against background: (Z, H, W) bool, from one array a contrast in native units; any axis order, integers as they are.

    Per contrast a threshold above the background's own noise; then a majority of the contrasts (either of two), small specks dropped, holes filled in
    every plane. Background that cannot be seen (a scan cropped to tissue) gives all True.
    """
    if not volumes:
        raise ValueError("foreground needs at least one contrast")
    votes = np.zeros(volumes[0].shape, dtype=np.uint8)
    for volume in volumes:
        votes += _above(volume, _background_threshold(volume)).view(np.uint8)
    return _cleaned(votes >= (len(volumes) + 1) // 2)


def _above(volume: np.ndarray, threshold: float) -> np.ndarray:
    """`volume` > `threshold`, without turning integers into floats first."""
    if volume.dtype.kind not in "iu" or not np.isfinite(threshold):
        return volume > threshold
    whole, limits = floor(threshold), np.iinfo(volume.dtype)
    if not limits.min <= whole <= limits.max:
        return np.full(volume.shape, whole < limits.min)
    return volume > volume.dtype.type(whole)


def _background_threshold(volume: np.ndarray) -> float:
    """The value above which a voxel is tissue: over the background's median by five of its robust standard deviations
    and by a share of the step to tissue.

    The two classes are split where the split is halfway between their means (Ridler & Calvard 1978), on values clipped at their 99th percentile.
    """
    sample = volume.reshape(-1, order="A")[:: max(1, volume.size // _SAMPLE | 1)]
    everything = _Counted.of(sample if _is_small_integer(sample.dtype) else sample.astype(np.float32))
    everything = everything.clipped(everything.quantile(0.99))
    split = _halfway(everything)
    dark, bright = everything.up_to(split), everything.above(split)
    if not bright.values.size:
        return -np.inf
    level, tissue = dark.quantile(0.5), bright.quantile(0.5)
    noise = 1.4826 * dark.distances(level).quantile(0.5)
    if noise > 0.2 * (tissue - level):  # the dark class is as varied as tissue is: no background in view
        return -np.inf
    # Air beside the head shines in scans corrected for their coil. Where a tool has written one value round the brain, everything above it is brain.
    alone = dark.distances(level).up_to(0)
    share = 0.03 if alone.values.size and alone.size > 0.8 * dark.size else 0.15
    return level + max(5 * noise, share * (tissue - level))


def _halfway(sample: _Counted) -> float:
    """The value that lies halfway between the mean of what is above it and the mean of the rest; the highest value where nothing is above."""
    sums = np.cumsum(sample.values * np.diff(sample.upto, prepend=0))
    split = float(sums[-1]) / sample.size
    for _ in range(50):
        last = int(np.searchsorted(sample.values, split, side="right")) - 1
        if last + 1 == len(sums):
            return split
        dark = sums[last] / sample.upto[last]
        bright = (sums[-1] - sums[last]) / (sample.size - sample.upto[last])
        moved = float(dark + bright) / 2
        if abs(moved - split) <= 1e-4 * abs(split):
            break
        split = moved
    return split


def _cleaned(raw: np.ndarray) -> np.ndarray:
    """Without components below 2 % of the largest, and with the holes of every plane of every axis filled."""
    runs = runs_of(raw)
    if not runs.start.size:
        return np.ones_like(raw)
    labels, _ = components(runs, rows=True, planes=True)
    sizes = np.bincount(labels, weights=runs.stop - runs.start)
    large = (sizes >= 0.02 * sizes.max())[labels]
    kept = np.array(raw, order="C")
    kept.reshape(-1)[runs.chosen(~large).voxels()] = False
    z, y, low, high = runs.chosen(large).places
    box = slice(int(z[0]), int(z[-1]) + 1), slice(int(y.min()), int(y.max()) + 1), slice(int(low.min()), int(high.max()))
    background = ~kept[box]
    along, across = runs_of(background), runs_of(background.transpose(0, 2, 1))
    inside = background.reshape(-1)
    for holes in (_closed(along, rows=True).voxels(), _closed(along, rows=False).voxels(), _closed(across, rows=False).voxels(transposed=True)):
        inside[holes] = False
    kept[box] = ~background
    return kept


def _closed(runs: Runs, *, rows: bool) -> Runs:
    """Those that have no way to the border of their plane: of the (H, W) planes (`rows`), or of the (Z, W) planes that stand across them."""
    z, y, low, high = runs.places
    line, last = (y, runs.shape[1] - 1) if rows else (z, runs.shape[0] - 1)
    ends = (line == 0) | (line == last) | (low == 0) | (high == runs.shape[2])
    inner, outer = runs.chosen(~ends), runs.chosen(ends)
    if not inner.start.size:
        return inner
    step = runs.row_step if rows else runs.plane_step
    labels, number = components(inner, rows=rows, planes=not rows)
    reaches = np.zeros(number, bool)
    reaches[labels[overlapping(inner, outer, step) | overlapping(inner, outer, -step)]] = True
    return inner.chosen(~reaches[labels])

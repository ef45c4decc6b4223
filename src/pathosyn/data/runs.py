"""Connected components of large, simple masks by their runs: a head of a million voxels is a few ten thousand runs along its rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Runs:
    """The True stretches along the last axis of a mask, in C order.

    start, stop  (n,) where each begins and ends, counted in the mask with one row and one column of False put before each plane and row
    shape        (Z, H, W) of the mask
    """

    start: np.ndarray
    stop: np.ndarray
    shape: tuple[int, int, int]

    @property
    def row_step(self) -> int:
        """From a voxel to its neighbour in the next row of its plane."""
        return self.shape[2] + 1

    @property
    def plane_step(self) -> int:
        """From a voxel to its neighbour in the next plane."""
        return (self.shape[1] + 1) * self.row_step

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(n,) each: z, y, and along x the first column and the one after the last."""
        row, z = self.start // self.row_step, self.start // self.plane_step  # numpy's divmod is several times as slow
        low = self.start - row * self.row_step - 1
        return z, row - z * (self.shape[1] + 1) - 1, low, low + self.stop - self.start

    def chosen(self, which: np.ndarray) -> Runs:
        """Some of the runs: `which` (n,) bool."""
        return Runs(self.start[which], self.stop[which], self.shape)

    def voxels(self, *, transposed: bool = False) -> np.ndarray:
        """Every voxel in the runs, counted in the mask in C order; `transposed`: in (Z, W, H), of which the mask is the transpose."""
        z, y, low, high = self.places
        _, height, width = self.shape
        row, column = (1, height) if transposed else (width, 1)
        length = high - low
        before = np.cumsum(length) - length
        begin = z * (height * width) + y * row + low * column
        return np.repeat(begin - before * column, length) + np.arange(int(length.sum())) * column


def runs_of(mask: np.ndarray) -> Runs:
    """The runs of `mask` (Z, H, W) bool."""
    depth, height, width = mask.shape
    flat = np.zeros(depth * (height + 1) * (width + 1) + 1, bool)
    flat[:-1].reshape(depth, height + 1, width + 1)[:, 1:, 1:] = mask
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return Runs(edges[::2], edges[1::2], (depth, height, width))


def overlapping(runs: Runs, others: Runs, step: int) -> np.ndarray:
    """(n,) bool: which of `runs`, moved by `step`, overlap one of `others` of the same mask."""
    first = np.searchsorted(others.stop, runs.start + step, side="right")
    return np.searchsorted(others.start, runs.stop + step, side="left") > first


def components(runs: Runs, *, rows: bool, planes: bool) -> tuple[np.ndarray, int]:
    """The component (n,) of each run, from 0, and their number: runs are joined where voxels touch by a face,
    to the next row of the plane (`rows`), to the same row of the next plane (`planes`).
    """
    steps = [runs.row_step] * rows + [runs.plane_step] * planes
    # The runs that overlap a given one, moved by a step, follow each other: for each step the first of them and their number.
    first = np.stack([np.searchsorted(runs.stop, runs.start + step, side="right") for step in steps], axis=1)
    last = np.stack([np.searchsorted(runs.start, runs.stop + step, side="left") for step in steps], axis=1)
    ends = np.cumsum(last - first)
    touching = np.arange(ends[-1] if ends.size else 0) + np.repeat(last.ravel() - ends, (last - first).ravel())
    begin = np.concatenate([[0], ends[len(steps) - 1 :: len(steps)]])
    graph = sparse.csr_array((np.ones(len(touching)), touching, begin), shape=(len(first), len(first)))
    number, labels = connected_components(graph, directed=False)
    return labels, number

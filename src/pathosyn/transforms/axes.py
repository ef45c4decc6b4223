"""From the axes of a NIfTI-like array to slices order and back, by its affine: axial slices, rows from back to front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axes:
    """`order` are the array's spatial axes in slices order (z, y, x) or (y, x); `flips` says which of these run the other way; `spacing` is theirs, mm."""

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(cls, affine: np.ndarray, dimensions: int) -> Axes:
        """By the affine (n, n) of an array with 2 or 3 spatial axes. In a slice that is not axial rows and columns stay what they are."""
        steps = np.asarray(affine, float)[: min(3, len(affine) - 1), :dimensions]
        spacing = np.linalg.norm(steps, axis=0)
        world = _nearest(steps / np.maximum(spacing, 1e-12))
        if dimensions == 2 and sorted(world) != [0, 1]:
            world = [1, 0]
            steps = np.abs(steps)
        order = tuple(int(axis) for axis in np.argsort(world)[::-1])
        flips = tuple(bool(steps[world[axis], axis] < 0) for axis in order)
        return cls(order, flips, tuple(float(spacing[axis]) for axis in order))

    @classmethod
    def plain(cls, spacing: Sequence[float]) -> Axes:
        """Of an array that is in slices order already."""
        return cls(tuple(range(len(spacing))), (False,) * len(spacing), tuple(spacing))

    def turned(self, array: np.ndarray) -> np.ndarray:
        """(C, *spatial) in slices order, a view."""
        view = array.transpose(0, *(axis + 1 for axis in self.order))
        return view[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def restored(self, array: np.ndarray) -> np.ndarray:
        """The way back of `turned`, contiguous."""
        view = array[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))]
        return np.ascontiguousarray(view.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.order))))


def _nearest(directions: np.ndarray) -> list[int]:
    """For each of the array's axes the world axis that it is nearest to, no two the same."""
    left, found = np.abs(directions).copy(), [0] * directions.shape[1]
    for _ in found:
        row, column = np.unravel_index(int(np.argmax(left)), left.shape)
        found[int(column)] = int(row)
        left[row, :] = left[:, column] = -1
    return found

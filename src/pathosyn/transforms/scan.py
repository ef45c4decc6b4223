"""An image as the drawing needs it: where the head is, where lesions are already, and the intensity scale of each contrast. Slices order (Z, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathosyn.config import Geometry
from pathosyn.data.masks import blend_map
from pathosyn.data.normalise import Normaliser, fit_normaliser, foreground
from pathosyn.data.tissue import ONE_VALUE, blank, one_value, solid

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

RIM_MM = 15.0
"""So thick are skin, fat and bone where no tool has cut the brain out."""
FLUID_PX = 5
"""Side of the square over which fluid has to prevail for it to count: ventricles, not sulci."""


@dataclass(frozen=True)
class Scan:
    """stack (C, Z, H, W) in its own units; head and near (Z, H, W): foreground, and lesions that are there with their margin; normalisers by channel, of the
    contrasts that have more than one value."""

    stack: np.ndarray
    names: Sequence[str]
    spacing: Spacing
    head: Mask
    near: Mask
    normalisers: dict[int, Normaliser]

    @classmethod
    def of(cls, names: Sequence[str], geometry: Geometry, stack: np.ndarray, old: Mask, spacing: Spacing) -> Scan | None:
        """None where no contrast has more than one value."""
        there = [c for c, values in enumerate(stack) if values.min() < values.max()]
        if not there:
            return None
        head = head_of([stack[c] for c in there])
        near = blend_map(old, spacing, geometry) > 0
        return cls(stack, names, spacing, head, near, {c: fit_normaliser(stack[c], head, exclude=near) for c in there})

    def free(self, rim_mm: float | None) -> Mask:
        """Where a lesion may lie: on the head and at least `rim_mm` from its edge in the slice (None: as far as skull and skin seem to reach), off other
        lesions, and not where fluid prevails."""
        rim = self._rim() if rim_mm is None else rim_mm
        tissue = solid({self.names[c]: normaliser.apply(self.stack[c]) for c, normaliser in self.normalisers.items()})
        if np.ndim(tissue):
            tissue = ndimage.uniform_filter(tissue, (0, FLUID_PX, FLUID_PX))
        sides = [2 * int(rim / step) + 1 for step in self.spacing[1:]]
        return ndimage.minimum_filter(self.head, (1, *sides), mode="constant", cval=False) & ~self.near & (tissue > 0.5)

    def _rim(self) -> float:
        # Without anything off the head there is nothing left to cut out.
        cut_out = self.head.all() or all(level is not None for level in self._levels.values())
        return 0.0 if cut_out else RIM_MM

    def blank(self, channel: int, slab: slice) -> Mask:
        """Where a channel holds no signal in these slices, (z, H, W)."""
        normal, level = self.normalisers[channel].apply, self._levels[channel]
        return blank(normal(self.stack[channel, slab]), None if level is None else float(normal(np.asarray(level))))

    @cached_property
    def _levels(self) -> dict[int, float | None]:
        return {c: one_value(self.stack[c][~self.head]) for c in self.normalisers}


def head_of(contrasts: Sequence[np.ndarray]) -> Mask:
    """The head or brain from (Z, H, W) in any units, as `prepare` finds it, also where a tool's background is not the darkest value, as after a
    normalisation of the brain alone."""
    return foreground([_background_darkest(values) for values in contrasts])


def _background_darkest(values: np.ndarray) -> np.ndarray:
    edge = np.concatenate([values[:, [0, -1]].ravel(), values[:, :, [0, -1]].ravel()])
    level, (low, high) = np.median(edge), (float(values.min()), float(values.max()))
    if level == low or np.count_nonzero(edge == level) < ONE_VALUE * edge.size:
        return values
    return np.where(values == level, np.float32(low - (high - low)), values)

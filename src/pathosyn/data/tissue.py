"""Where a lesion may go: where a contrast holds any signal; and its rim: tissue, and not the fluid of ventricles and sulci, nor bone.

How dark fluid is in normalised units depends on what else is in the head: in brain-extracted scans it lies far below -1.6, in scans with the skull on, whose
bone and air are as dark, it often does not reach -1, and little is stopped then.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

DARK = ("t1", "t1ce", "flair")
"""The contrasts in which fluid is dark."""
ONE_VALUE = 0.8
"""Where more than this share of what is off the head has one value, a tool has cut the brain out, and wrote it."""
EVEN = 1e-4
"""Normalised units: values no further apart are one, which was interpolated."""
FLUID, TISSUE = -1.6, -1.0
"""Normalised units: as dark as the one in every such contrast is fluid, as bright as the other in any of them is tissue (docs/decisions.md)."""


def solid(images: Mapping[str, np.ndarray]) -> np.ndarray | np.float32:
    """1 on tissue, 0 on fluid, bone and air, a smoothstep between; float32 of the images' shape. `images`: contrast → normalised units.

    The brightest of the `DARK` contrasts decides: fluid is dark in all of them, oedema bright in FLAIR. 1 everywhere without a FLAIR: in T1 a lesion beyond
    its mask can be as dark as fluid."""
    if "flair" not in images:
        return np.float32(1.0)
    dark = [images[name] for name in DARK if name in images]
    share = np.clip((np.maximum.reduce(dark) - np.float32(FLUID)) / np.float32(TISSUE - FLUID), 0, 1, dtype=np.float32)
    return share * share * (3 - 2 * share)


def on_tissue(x: np.ndarray, changed: np.ndarray, share: np.ndarray) -> np.ndarray:
    """x + share (changed - x): `changed` where `share`, in [0, 1], is 1, x to the bit where it is 0. Arrays of one shape, or shapes that fit."""
    return np.where(share >= 1, changed, np.where(share > 0, x + share * (changed - x), x))


def one_value(outside: np.ndarray) -> float | None:
    """The one value that a tool wrote around a brain, out of the values off the head; None where they differ, as noise does."""
    level = float(np.median(outside)) if outside.size else np.nan
    return level if np.count_nonzero(outside == level) >= ONE_VALUE * max(outside.size, 1) else None


def blank(image: np.ndarray, level: float | None = None) -> NDArray[np.bool_]:
    """Where an image (H, W) or (Z, H, W), normalised, holds no signal: squares of 3×3 pixels of a slice that all hold one value, which is as dark as fluid or
    is `level` (`one_value`, normalised, where a tool wrote one). So it is beyond a contrast's field of view, and around an extracted brain; a dark pixel
    alone is tissue."""
    size = (1,) * (image.ndim - 2) + (3, 3)
    low, high = (one(image, size, mode="nearest") for one in (minimum_filter, maximum_filter))
    even = (high - low <= EVEN) & ((high <= FLUID) | (False if level is None else np.abs(image - level) <= EVEN))
    return maximum_filter(even, size, mode="constant", cval=False)

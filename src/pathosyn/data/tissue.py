"""Where a lesion's rim may go: tissue, and not the fluid of ventricles and sulci, nor bone.

How dark fluid is in normalised units depends on what else is in the head: in brain-extracted scans it lies far below -1.6, in scans with the skull on, whose
bone and air are as dark, it often does not reach -1, and little is stopped then.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DARK = ("t1", "t1ce", "flair")
"""The contrasts in which fluid is dark."""
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

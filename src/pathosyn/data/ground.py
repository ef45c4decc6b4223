"""A slice in which a lesion may be placed: the brain within a head that may still have its skull, and the fluid in it.

An estimate from intensities alone, slice by slice, made to place masks and not to measure brains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from pathosyn.data.masks import box_of
from pathosyn.data.tissue import DARK

if TYPE_CHECKING:
    from pathosyn.data.slices import Slices

BRIGHTEST, DARKEST = -0.4, -1.0
"""Normalised units between which the limit of fluid and bone lies: about -1 where the skull is off, brighter in scans with the skull on."""
OPENINGS_MM = (3.5, 5.5, 8.0)
"""What is joined by bridges thinner than twice this is not one tissue: the scalp and the brain, the eyes and the brain. The first is enough for most
scans; the others follow where the brain that was found still holds its skull."""
MUCH_DARK = 0.06
"""A brain with a larger share of fluid and bone is tried again with the next opening."""
ALSO = 0.5
"""Pieces with this share of the largest one's weight belong to the brain, too: hemispheres that a dark falx parts."""
LEAST = 0.2
"""A brain below this share of the head was not found."""
STRIPPED = 0.85
"""A scan in whose slices the brain has, in the median, this share of the head is brain-extracted."""
FAT = 1.2
"""So much brighter than the head's median is the fat along the border of a head with its scalp on, normalised units."""
SCALP_MM = 6.0
"""Scalp and skull are at least as thick."""
SMOOTH_PX = 1.5
"""σ by which fluid is smoothed: outlines do not follow vessels and narrow sulci."""
PROBES = 5
"""Slices of a subject by which to tell whether its skull is on."""


@dataclass(frozen=True)
class Ground:
    """A slice in which a mask is wanted.

    images    contrast → (H, W), normalised units: those that the subject has
    head      (H, W) bool foreground
    taken     (H, W) bool: the support of the slice's own lesion, which the new one's support may not touch
    height    the slice's place in its stack, 0 … 1
    skull     whether the scan's skull is on
    """

    images: Mapping[str, np.ndarray]
    head: np.ndarray
    taken: np.ndarray
    height: float
    skull: bool = False
    pixel_mm: float = 1.0

    @cached_property
    def tissue(self) -> np.ndarray:
        """(H, W) bool: the brain, ventricles included; all False where a skull is on and was not told from the brain."""
        return brain(self.images, self.head, skull=self.skull, pixel_mm=self.pixel_mm)

    @cached_property
    def fluid(self) -> np.ndarray:
        """(H, W) bool: fluid and bone, where they are wide enough to stop a lesion."""
        return ndimage.gaussian_filter(dark(self.images, self.head).astype(np.float32), SMOOTH_PX) > 0.5


class Grounds:
    """The slices of a slices file as `Ground`s; whether a subject's skull is on is looked up once."""

    def __init__(self, slices: Slices) -> None:
        self.slices = slices
        self._skull: dict[int, bool] = {}

    def of(self, number: int, z: int) -> Ground:
        """Slice `z` of subject `number`."""
        if number not in self._skull:
            self._skull[number] = self._has_skull(number)
        head, own = self.slices.head_and_own(number, z)
        taken = np.zeros_like(head) if own is None else own
        return Ground(self._images(number, z), head, taken, (z + 0.5) / self.slices.depth[number], self._skull[number], self.slices.geometry.grid_mm)

    def _images(self, number: int, z: int) -> dict[str, np.ndarray]:
        plane, _ = self.slices.plane(number, z)
        return {name: plane[c] for c, name in enumerate(self.slices.contrasts) if self.slices.present[number, c]}

    def _has_skull(self, number: int) -> bool:
        """Told by the brain's share of the head, and by fat along its border. Without a contrast in which bone is dark neither is seen: no skull then."""
        depth, pixel_mm = self.slices.depth[number], self.slices.geometry.grid_mm
        shares, rims = [], []
        for z in sorted({int((i + 0.5) * depth / PROBES) for i in range(PROBES)}):
            images = self._images(number, z)
            head, own = self.slices.head_and_own(number, z)
            if head.any():
                shares.append(brain(images, head, skull=False, pixel_mm=pixel_mm).sum() / head.sum())
                rims.append(_rim(images, head, own, pixel_mm))
        return bool(shares) and (float(np.median(shares)) < STRIPPED or float(np.median(rims)) > FAT)


def _rim(images: Mapping[str, np.ndarray], head: np.ndarray, own: np.ndarray | None, pixel_mm: float) -> float:
    """How bright the brighter part of the head's border is, normalised units over the head's median; 0 where nothing is seen of it."""
    known = [images[name] for name in DARK if name in images]
    depth = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1] * pixel_mm
    rim = (depth > 1) & (depth <= SCALP_MM) & (True if own is None else ~own)
    return float(np.percentile(np.maximum.reduce(known)[rim], 80) - np.median(np.maximum.reduce(known)[head])) if known and rim.any() else 0.0


def dark(images: Mapping[str, np.ndarray], head: np.ndarray) -> np.ndarray:
    """(H, W) bool: fluid, bone and air on the head. `images`: contrast → (H, W), normalised units; all False without one in which fluid is dark.

    Other than `tissue.solid`, whose fixed limits must not touch a lesion's rim, the limit follows the scan: half way from its darkest pixels to its
    median, which is 0."""
    known = [images[name] for name in DARK if name in images]
    if not known or not head.any():
        return np.zeros_like(head)
    brightest = np.maximum.reduce(known)
    limit = np.clip(np.percentile(brightest[head], 1) / 2, DARKEST, BRIGHTEST)
    return head & (brightest < limit)


def brain(images: Mapping[str, np.ndarray], head: np.ndarray, *, skull: bool, pixel_mm: float = 1.0) -> np.ndarray:
    """(H, W) bool: the thickest pieces of tissue, ventricles included, that bone and fluid part from the rest of the head.

    Where no such pieces are found: with a `skull` nothing, without one the head itself."""
    black = dark(images, head)
    near = ndimage.distance_transform_edt(np.pad(head & ~black, 1))[1:-1, 1:-1]
    inner = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1] > SCALP_MM / pixel_mm if skull else head
    for opening in OPENINGS_MM:
        found = _opened(near, max(1, ceil(opening / pixel_mm))) & head
        area = int(found.sum())
        if area < LEAST * head.sum():
            break
        if float(black[found].mean()) <= MUCH_DARK and not (skull and area > STRIPPED * head.sum()):
            return found & inner
    return np.zeros_like(head) if skull else head


def _opened(near: np.ndarray, reach: int) -> np.ndarray:
    """The thickest pieces of what lies deeper than `reach` (by `near`, the depth in pixels), grown back and filled; all False without one."""
    labels, count = ndimage.label(near > reach)
    if not count:
        return np.zeros(near.shape, bool)
    # Thick pieces count more: at the vertex the scalp has more pixels than the brain.
    weight = np.bincount(labels.ravel(), near.ravel() ** 2)[1:]
    inner = np.isin(labels, 1 + np.flatnonzero(weight >= ALSO * weight.max()))
    return ndimage.binary_fill_holes(ndimage.distance_transform_edt(~inner) <= reach)


def in_box(tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) each: y and x of every pixel in the coordinates of the tissue's bounding box, -1 … 1 from edge to edge. ValueError without tissue."""
    box = box_of(tissue)
    if box is None:
        raise ValueError("no tissue")
    v, u = ((np.arange(n) - (b.start + b.stop - 1) / 2) / ((b.stop - b.start) / 2) for b, n in zip(box, tissue.shape, strict=True))
    return np.broadcast_to(v[:, None], tissue.shape), np.broadcast_to(u[None, :], tissue.shape)

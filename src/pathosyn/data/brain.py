"""Where in a slice a lesion may be placed: the brain within a head that may still have its skull, and the fluid in it.

An estimate from intensities alone, slice by slice, made to place masks and not to measure brains.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import numpy as np
from scipy import ndimage

from pathosyn.data.masks import box_of
from pathosyn.data.tissue import DARK

BRIGHTEST, DARKEST = -0.4, -1.0
"""Normalised units between which the limit of fluid and bone lies: about -1 where the skull is off, brighter in scans with the skull on."""
OPENINGS_MM = (3.5, 5.5, 8.0)
"""What is joined by bridges thinner than twice this is not one tissue: the scalp and the brain, the eyes and the brain. The first is enough for most
scans; the others follow where the brain that was found still holds its skull."""
MUCH_DARK = 0.06
"""A brain with a larger share of fluid and bone is tried again with the next opening."""
ALSO = 0.5
"""Pieces with this share of the largest one's weight belong to the brain, too: hemispheres that a dark falx parts."""
LEAST = 0.25
"""A brain below this share of the head was not found; the whole head is taken for it."""


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


def brain(images: Mapping[str, np.ndarray], head: np.ndarray, pixel_mm: float = 1.0) -> np.ndarray:
    """(H, W) bool: the thickest pieces of tissue, ventricles included, that bone and fluid part from the rest of the head.

    The head itself where no such piece is found, or nothing tells bone from tissue."""
    black = dark(images, head)
    near = ndimage.distance_transform_edt(np.pad(head & ~black, 1))[1:-1, 1:-1]
    best, least = head, 1.0
    for opening in OPENINGS_MM:
        found = _opened(near, max(1, ceil(opening / pixel_mm))) & head
        area = int(found.sum())
        if area < LEAST * head.sum():
            break
        share = float(black[found].mean())
        if share < least:
            best, least = found, share
        if share <= MUCH_DARK:
            break
    return best


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

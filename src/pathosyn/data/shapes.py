"""Outlines of training lesions, as signed distances that can be turned, mirrored and changed elastically without changing their area; and where they lie.

NumPy and SciPy only; what is random comes from the generator that is passed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, pi, sqrt
from typing import TYPE_CHECKING

import h5py
import numpy as np
from scipy import ndimage

from pathosyn.data.ground import Ground, Grounds, in_box
from pathosyn.data.masks import box_of
from pathosyn.errors import refuse

if TYPE_CHECKING:
    from pathosyn.data.slices import Slices

LEAST = 24
"""Pixels below which a piece of a mask is no outline but a crumb: half of the pieces of a mask drawn at 1 mm are single pixels."""
CELLS = 48
"""Cells a side of the map of places, over the brain's bounding box."""
LOOKED_AT = 16
"""Slices of a subject, evenly spread, whose places count: neighbours say the same."""
WELL_FOUND = 0.8
"""Share of a lesion that must lie on the brain as it was found; else the slice's brain was not found, and says nothing of places."""
CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Shape:
    """One connected piece of a lesion in one slice.

    sdf         (h, w) float32: distance to the outline in pixels, negative inside, with a margin around it
    pixels      its size; `area_mm2` the same in mm²
    subject, z  where it comes from; `height` is the slice's place in the subject's stack, 0 … 1
    attributes  the subject's row of subjects.csv: grade and the like; may be empty
    """

    sdf: np.ndarray
    pixels: int
    area_mm2: float
    subject: str
    z: int
    height: float
    attributes: Mapping[str, str]

    @property
    def radius(self) -> float:
        """Of the disk of the same area, pixels."""
        return sqrt(self.pixels / pi)


@dataclass(frozen=True)
class Spot:
    """Where in the brain's box the lesion of one slice lies: `share` (CELLS, CELLS) float32 sums to 1."""

    subject: str
    height: float
    share: np.ndarray


@dataclass(frozen=True)
class Bank:
    """The shapes of the training lesions, uniform draws from which have their distribution of sizes, and where those lesions lie."""

    shapes: tuple[Shape, ...]
    spots: tuple[Spot, ...]
    pixel_mm: float

    @cached_property
    def areas_mm2(self) -> np.ndarray:
        """(n,) of the shapes."""
        return np.array([shape.area_mm2 for shape in self.shapes])


def signed_distance(mask: np.ndarray, margin: int) -> np.ndarray:
    """`mask` (h, w) cut to its box and a margin → float32 distance to its outline, pixels, negative inside; the outline runs between the pixels."""
    padded = np.pad(mask[box_of(mask) or ()], margin)
    inside, outside = ndimage.distance_transform_edt(padded), ndimage.distance_transform_edt(~padded)
    return np.where(padded, 0.5 - inside, outside - 0.5).astype(np.float32)


def margin_of(pixels: int) -> int:
    """Pixels around a shape of this size that no change outgrows."""
    return 4 + ceil(0.4 * sqrt(pixels / pi))


def bank_of(slices: Slices, *, least: int = LEAST) -> Bank:
    """Every connected piece of `least` pixels or more in the slices of these subjects, which must be training subjects.

    InputError where other subjects are among them, or no piece is as large."""
    if slices.partitions != ("train",):
        found = f"subjects of {' and '.join(slices.partitions)}"
        raise refuse(slices.path, found=found, expected="training subjects as the source of shapes", remedy="open the partition train")
    shapes: list[Shape] = []
    spots: list[Spot] = []
    mm, grounds = slices.geometry.grid_mm, Grounds(slices)
    with h5py.File(slices.path, "r") as file:
        for number, name in enumerate(slices.subjects):
            group = file["subjects"][name]
            lesion = group["seg"][()] > 0
            attributes = json.loads(group.attrs["attributes"])
            with_lesion = np.flatnonzero(lesion.sum(axis=(1, 2)) >= least)
            for z in with_lesion:
                height = (z + 0.5) / len(lesion)
                shapes += [
                    Shape(signed_distance(piece, margin_of(n := int(piece.sum()))), n, n * mm * mm, name, int(z), height, attributes)
                    for piece in pieces(lesion[z], least)
                ]
            looked_at = with_lesion[:: max(1, ceil(len(with_lesion) / LOOKED_AT))]
            spots += [spot for z in looked_at if (spot := _spot(name, grounds.of(number, int(z)), lesion[z])) is not None]
    if not shapes:
        raise refuse(slices.path, found=f"no training lesion of {least} pixels in a slice", expected="one at least", remedy="prepare data with masks")
    return Bank(tuple(shapes), tuple(spots), mm)


def pieces(mask: np.ndarray, least: int = LEAST) -> list[np.ndarray]:
    """The connected pieces (corners count) of `mask` (H, W) of `least` pixels or more, each cut to its box."""
    labels, _ = ndimage.label(mask, CONNECTED)
    cut = [labels[box] == number for number, box in enumerate(ndimage.find_objects(labels), start=1)]
    return [piece for piece in cut if piece.sum() >= least]


def _spot(subject: str, ground: Ground, lesion: np.ndarray) -> Spot | None:
    """The lesion (H, W) of one slice in the coordinates of the brain's box; None where the brain was not found."""
    on = lesion & ground.tissue
    if on.sum() < WELL_FOUND * lesion.sum():
        return None
    v, u = (part[on] for part in in_box(ground.tissue))
    share, *_ = np.histogram2d(v, u, bins=CELLS, range=((-1, 1), (-1, 1)))
    return Spot(subject, ground.height, (share / share.sum()).astype(np.float32))


def smooth_field(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """(side, side): a smooth random field with unit root mean square, correlated over `sigma` pixels."""
    reach = ceil(3 * sigma)
    white = rng.standard_normal((side + 2 * reach, side + 2 * reach))
    field = ndimage.gaussian_filter(white, sigma, mode="constant", truncate=3.0)[reach : reach + side, reach : reach + side]
    return field * (2 * sqrt(pi) * sigma)


def changed(sdf: np.ndarray, *, angle: float, mirrored: bool, shift: np.ndarray) -> np.ndarray:
    """The shape turned by `angle` (radians, about its array's centre) after mirroring left to right, then displaced by `shift` (2, n, n) pixels: (n, n),
    the square that `side_for` gives."""
    side = shift.shape[-1]
    y, x = np.meshgrid(*[np.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    y, x = y + shift[0], x + shift[1]
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    middle = [(n - 1) / 2 for n in sdf.shape]
    return ndimage.map_coordinates(sdf, [y + middle[0], (-x if mirrored else x) + middle[1]], order=1, mode="nearest")


def side_for(sdf: np.ndarray) -> int:
    """A square of this side holds the shape at any angle."""
    return ceil(float(np.hypot(*sdf.shape)))


def lowest(sdf: np.ndarray, pixels: int) -> np.ndarray:
    """The level set of exactly `pixels` pixels: those of the smallest distance, earlier ones first where distances are equal; infinite ones never.

    ValueError where there are fewer finite ones."""
    order = np.argsort(sdf, axis=None, kind="stable")[:pixels]
    if len(order) < pixels or not np.isfinite(sdf.flat[order[-1]]):
        raise ValueError(f"fewer than {pixels} pixels to choose from")
    mask = np.zeros(sdf.shape, bool)
    mask.flat[order] = True
    return mask


def in_one_piece(mask: np.ndarray, share: float = 1.0) -> bool:
    """Whether the largest connected piece has this share of the mask's pixels."""
    labels, count = ndimage.label(mask, CONNECTED)
    return count == 1 or bool(np.bincount(labels.ravel())[1:].max() >= share * mask.sum())

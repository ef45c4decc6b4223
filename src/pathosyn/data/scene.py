"""A scan on the working grid with its support, foreground and intensity scale, and the record that `prepare` stores of it.

The same steps serve training and inference, so that a network meets the same numbers in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pathosyn.config import Geometry
from pathosyn.data.inpaint import inpaint as fill
from pathosyn.data.masks import blend_map, box_of, grown_box, in_plane
from pathosyn.data.normalise import Normaliser, fit_normaliser, foreground, write_half
from pathosyn.data.store import Record
from pathosyn.data.subjects import Scan
from pathosyn.data.windows import Window, as_table, windows_of

IMAGE_ORDER = 3
"""Cubic splines between the native and the working in-plane grid: linear ones would take the texture's fine part away."""
_BORDER = 8  # pixels kept around the head


@dataclass(frozen=True)
class Scene:
    """A scan in slices order on the working grid, uncropped.

    images   contrast → (Z, H, W), native units: float32, or the integers of a file that stores one or two bytes a voxel and is not resampled
    seg      (Z, H, W) uint8 labels, 0 where there is no mask
    spacing  mm along z, y, x
    S        (Z, H, W) blend map of the lesion, 0 off the head beyond the lesion itself: what lies there is no tissue
    head     (Z, H, W) bool foreground
    normalisers  contrast → intensity scale, fitted over the head without the support
    """

    images: dict[str, np.ndarray]
    seg: np.ndarray
    spacing: tuple[float, float, float]
    S: np.ndarray
    head: np.ndarray
    normalisers: dict[str, Normaliser]


def on_grid(canonical: np.ndarray, spacing: Sequence[float], grid_mm: float, *, order: int) -> np.ndarray:
    """Canonical (X, Y, Z) with its `spacing` (x, y, z) → slices order (Z, H, W), in-plane on the working grid."""
    return in_plane(canonical.transpose(2, 1, 0), tuple(spacing)[::-1], grid_mm, order=order)


def grid_spacing(spacing: Sequence[float], grid_mm: float) -> tuple[float, float, float]:
    """(z, y, x) spacing of the working grid: in-plane that of the grid, or the native one where it is within 1 % and nothing is resampled."""
    x, y, z = spacing
    same = all(abs(step / grid_mm - 1) <= 0.01 for step in (x, y))
    return (z, y, x) if same else (z, grid_mm, grid_mm)


def scene_of(scan: Scan, geometry: Geometry) -> Scene:
    """Raises ValueError where a contrast has one value only."""
    native, grid = scan.spacing, geometry.grid_mm
    images = {name: on_grid(volume.native(), native, grid, order=IMAGE_ORDER) for name, volume in scan.volumes.items()}
    shape = next(iter(images.values())).shape
    seg = np.zeros(shape, np.uint8) if scan.labels is None else np.ascontiguousarray(on_grid(scan.labels, native, grid, order=0))
    spacing = grid_spacing(native, grid)
    blend = blend_map(seg > 0, spacing, geometry)
    head = foreground(list(images.values()))
    support = blend > 0
    normalisers = {name: fit_normaliser(image, head, exclude=support) for name, image in images.items()}
    around = box_of(support)
    if around is not None:
        blend[around] *= head[around] | (seg[around] > 0)
    return Scene(images, seg, spacing, blend, head, normalisers)


def record_of(scan: Scan, contrasts: Sequence[str], geometry: Geometry, inpaint: str) -> Record:
    """Everything that is stored of a subject, cropped to its head and lesion. Raises ValueError as `scene_of` does."""
    scene = scene_of(scan, geometry)
    everywhere = scene.S > 0  # on head and lesion alone
    around = box_of(scene.head | (scene.seg > 0)) or tuple(slice(0, n) for n in everywhere.shape)
    crop = grown_box(around, (0, _BORDER, _BORDER), everywhere.shape)
    origin = tuple(s.start for s in crop)
    support, seg = np.ascontiguousarray(everywhere[crop]), np.ascontiguousarray(scene.seg[crop])

    image = np.zeros((support.shape[0], len(contrasts), *support.shape[1:]), np.float16)
    present = np.array([name in scene.images for name in contrasts])
    normalisation = np.full((len(contrasts), 2), np.nan)
    for channel, name in enumerate(contrasts):
        if name in scene.images:
            normaliser = scene.normalisers[name]
            write_half(normaliser, scene.images[name][crop], image[:, channel])
            normalisation[channel] = normaliser.center, normaliser.scale

    index = np.flatnonzero(support).astype(np.int64, copy=False)
    # The windows are those of the uncropped grid, as at inference, where nothing is cropped.
    windows = [Window(w.z - origin[0], w.y - origin[1], w.x - origin[2], w.side) for w in windows_of(everywhere, geometry, geometry.grid_mm)]
    attributes = {
        "set": scan.set,
        "label_scheme": scan.label_scheme,
        "present": present,
        "normalisation": normalisation,
        "spacing": np.array(scene.spacing),
        "origin": np.array(origin),
        "full_shape": np.array(scene.S.shape),
    }
    return Record(
        name=scan.name,
        attributes=attributes,
        image=image,
        seg=seg,
        foreground=np.ascontiguousarray(scene.head[crop]).view(np.uint8),
        support_index=index,
        support_blend=scene.S[crop][support],
        support_inp=_filled(image, support, index, present, inpaint),
        windows=as_table(windows, seg > 0),
    )


def _filled(image: np.ndarray, support: np.ndarray, index: np.ndarray, present: np.ndarray, kind: str) -> np.ndarray:
    """Inp(x, D) at the support's pixels, (n, C) float16, in the order of `index`, the flattened places of `support`; 0 in an absent contrast."""
    depth, height, width = support.shape
    result = np.zeros((len(index), image.shape[1]), np.float16)
    ends = np.searchsorted(index, np.arange(depth + 1) * (height * width))
    for z in np.flatnonzero(np.diff(ends)):
        here = slice(ends[z], ends[z + 1])
        y, x = np.divmod(index[here] - z * (height * width), width)
        box = slice(int(y[0]), int(y[-1]) + 1), slice(int(x.min()), int(x.max()) + 1)
        rows, columns = grown_box(box, (_BORDER, _BORDER), (height, width))  # nothing farther off plays a part
        hole = support[z, rows, columns]
        result[here, present] = fill(kind, image[z, :, rows, columns][present].astype(np.float32), hole)[:, hole].T
    return result
